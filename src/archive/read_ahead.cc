#include "archive/read_ahead.h"

#include <algorithm>
#include <chrono>

namespace offprint::archive {
namespace {

constexpr auto kCancelInterval = std::chrono::milliseconds(50);

}  // namespace

ReadAhead::ReadAhead(ObjectStore& store, std::string key, const std::atomic<bool>* cancelled,
                     std::atomic<bool>& vanished)
    : store_(store),
      key_(std::move(key)),
      cancelled_(cancelled),
      vanished_(vanished),
      thread_([this] { fetch(); }) {}

ReadAhead::~ReadAhead() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

bool ReadAhead::offer(Bytes piece) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopped_ || pieces_.size() < kPiecesMax; });
  if (stopped_) return false;
  pieces_.push_back(std::move(piece));
  lock.unlock();
  changed_.notify_all();
  return true;
}

void ReadAhead::fetch() {
  Result<> outcome = [&]() -> Result<> {
    OFFPRINT_TRY_ASSIGN(auto source, store_.get(key_));
    for (;;) {
      Bytes piece(kPieceBytes);
      std::size_t filled = 0;
      while (filled < piece.size()) {
        OFFPRINT_TRY_ASSIGN(const std::size_t got, source->read(std::span(piece).subspan(filled)));
        if (got == 0) break;
        filled += got;
      }
      const bool last = filled < piece.size();
      piece.resize(filled);
      if (filled > 0 && !offer(std::move(piece))) return {};
      if (last) return {};
    }
  }();
  if (!outcome && outcome.error().code() == Code::kNotFound) vanished_ = true;
  {
    const std::lock_guard lock(mutex_);
    outcome_ = std::move(outcome);
    ended_ = true;
  }
  changed_.notify_all();
}

Result<> ReadAhead::wait_for_piece(std::unique_lock<std::mutex>& lock) {
  while (pieces_.empty() && !ended_) {
    if (cancelled_ != nullptr && *cancelled_) {
      store_.cancel();
      return fail(Code::kUnavailable, "cancelled");
    }
    changed_.wait_for(lock, kCancelInterval);
  }
  return {};
}

Result<std::size_t> ReadAhead::read(std::span<std::uint8_t> to) {
  std::size_t filled = 0;
  while (filled < to.size()) {
    if (taken_ == current_.size()) {
      std::unique_lock lock(mutex_);
      OFFPRINT_TRY(wait_for_piece(lock));
      if (pieces_.empty()) {
        if (!outcome_) return fail(outcome_.error());
        break;
      }
      current_ = std::move(pieces_.front());
      pieces_.pop_front();
      taken_ = 0;
      lock.unlock();
      changed_.notify_all();
    }
    const std::size_t size = std::min(to.size() - filled, current_.size() - taken_);
    std::copy_n(current_.begin() + static_cast<std::ptrdiff_t>(taken_), size,
                to.begin() + static_cast<std::ptrdiff_t>(filled));
    taken_ += size;
    filled += size;
  }
  return filled;
}

}  // namespace offprint::archive
