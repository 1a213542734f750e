#include "archive/pipe.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace offprint::archive {
namespace {

constexpr std::size_t kAheadMax = 1 << 20;

class Pipe final : public ltx::ByteSource, private ltx::ByteSink {
 public:
  explicit Pipe(std::function<Result<>(ltx::ByteSink&)> write)
      : writer_([this, write = std::move(write)] {
          Result<> written = write(*this);
          std::lock_guard lock(mutex_);
          result_ = std::move(written);
          ended_ = true;
          changed_.notify_all();
        }) {}
  ~Pipe() override {
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
      changed_.notify_all();
    }
    writer_.join();
  }

  Result<std::size_t> read(std::span<std::uint8_t> to) override {
    std::unique_lock lock(mutex_);
    std::size_t done = 0;
    while (done < to.size()) {
      changed_.wait(lock, [this] { return !pieces_.empty() || ended_; });
      if (pieces_.empty()) {
        if (!result_) return fail(result_.error());
        break;
      }
      ByteView piece = ByteView(pieces_.front()).subspan(taken_);
      std::size_t size = std::min(piece.size(), to.size() - done);
      std::copy_n(piece.begin(), size, to.begin() + static_cast<std::ptrdiff_t>(done));
      done += size;
      taken_ += size;
      if (taken_ == pieces_.front().size()) {
        waiting_ -= taken_;
        taken_ = 0;
        pieces_.pop_front();
        changed_.notify_all();
      }
    }
    return done;
  }

 private:
  Result<> write(ByteView bytes) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return waiting_ < kAheadMax || closed_; });
    if (closed_) return fail(Code::kUnavailable, "nobody reads any more");
    if (bytes.empty()) return {};
    pieces_.emplace_back(bytes.begin(), bytes.end());
    waiting_ += bytes.size();
    changed_.notify_all();
    return {};
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  // State below is protected by mutex_.
  std::deque<Bytes> pieces_;
  std::size_t taken_ = 0;    // of the first piece
  std::size_t waiting_ = 0;  // bytes in pieces_
  bool ended_ = false;
  bool closed_ = false;
  Result<> result_;

  std::thread writer_;  // last: it uses all of the above
};

}  // namespace

std::unique_ptr<ltx::ByteSource> make_pipe(std::function<Result<>(ltx::ByteSink&)> write) {
  return std::make_unique<Pipe>(std::move(write));
}

}  // namespace offprint::archive
