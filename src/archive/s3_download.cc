#include "archive/s3_download.h"

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <map>
#include <optional>
#include <thread>

#include <fmt/format.h>

namespace offprint::archive {
namespace {

// "bytes 5-9/100".
struct ContentRange {
  std::uint64_t first = 0, last = 0, total = 0;
};
std::optional<ContentRange> parse_content_range(std::string_view text) {
  ContentRange range;
  if (!text.starts_with("bytes ")) return std::nullopt;
  text.remove_prefix(6);
  for (auto [to, mark] : {std::pair{&range.first, '-'}, {&range.last, '/'}, {&range.total, '\0'}}) {
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *to);
    if (error != std::errc()) return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    if (mark == '\0') break;
    if (!text.starts_with(mark)) return std::nullopt;
    text.remove_prefix(1);
  }
  if (!text.empty() || range.last < range.first || range.last >= range.total) return std::nullopt;
  return range;
}

// What is known of the object since the first answer.
struct ObjectState {
  std::string etag;  // empty: not known
  std::optional<std::uint64_t> total;
};

// Bytes from `begin` on, at most `size` of them, however often the connection breaks.
class RangeFetch {
 public:
  RangeFetch(S3Client& client, const std::string& key, ObjectState state,
             const std::atomic<bool>& stop)
      : client_(client), key_(key), state_(std::move(state)), stop_(stop) {}

  Result<Bytes> run(std::uint64_t begin, std::uint64_t size);
  const ObjectState& state() const { return state_; }

 private:
  // How far a try came: true when it has all.
  Result<bool> take(const S3Request& request, S3Answer& answer);
  Result<bool> take_range(S3Answer& answer);
  std::unexpected<Error> wrong(std::string_view what) const {
    return fail(Code::kCorrupt,
                fmt::format("GET s3://{}/{}: {}", client_.settings().bucket, key_, what));
  }

  S3Client& client_;
  const std::string& key_;
  ObjectState state_;
  const std::atomic<bool>& stop_;
  std::uint64_t begin_ = 0, size_ = 0;
  Bytes content_;
};

Result<bool> RangeFetch::take_range(S3Answer& answer) {
  std::string said = answer.http.header("content-range");
  auto range = parse_content_range(said);
  std::uint64_t wanted = begin_ + content_.size();
  if (!range || range->first != wanted || range->last >= begin_ + size_)
    return wrong(fmt::format("asked from {} on, it answered '{}'", wanted, said));
  std::string etag = answer.http.header("etag");
  if (state_.total && (*state_.total != range->total || state_.etag != etag))
    return fail(Code::kConflict, fmt::format("GET s3://{}/{}: replaced while it was read",
                                             client_.settings().bucket, key_));
  state_ = {etag, range->total};
  size_ = std::min(size_, range->total - begin_);
  if (content_.empty()) {
    content_ = std::move(answer.http.body);
  } else {
    append(content_, answer.http.body);
  }
  if (content_.size() > size_) return wrong("more came than was asked for");
  return content_.size() == size_;
}

Result<bool> RangeFetch::take(const S3Request& request, S3Answer& answer) {
  if (answer.http.status == 206) return take_range(answer);
  if (answer.status == 0) return false;
  if (answer.status == 416 && !state_.total) {  // it ends before `begin`
    state_.total = begin_;
    return true;
  }
  // The service knows no ranges: a small object is there as a whole.
  if (answer.status == 200 && !state_.total) {
    std::string length = answer.http.header("content-length");
    Bytes& body = answer.http.body;
    if (!length.empty() && length != std::to_string(body.size())) return false;
    std::uint64_t skipped = std::min<std::uint64_t>(begin_, body.size());
    content_.assign(body.begin() + static_cast<std::ptrdiff_t>(skipped), body.end());
    state_ = {answer.http.header("etag"), body.size()};
    return true;
  }
  Error error = client_.error_of(request, answer);
  if (answer.status == 412)
    return fail(Error(Code::kConflict, error.message() + ": replaced while it was read"));
  return fail(error);
}

Result<Bytes> RangeFetch::run(std::uint64_t begin, std::uint64_t size) {
  begin_ = begin;
  size_ = size;
  content_.clear();
  S3Patience patience(client_.options());
  for (;;) {
    std::size_t had = content_.size();
    S3Request request;
    request.method = "GET";
    request.key = key_;
    request.headers.emplace_back("range",
                                 fmt::format("bytes={}-{}", begin_ + had, begin_ + size_ - 1));
    if (!state_.etag.empty()) request.headers.emplace_back("if-match", state_.etag);
    request.answer_max = static_cast<std::size_t>(size_);
    request.stop = &stop_;
    bool again = false;
    S3Answer answer = client_.try_once(request, again);
    if (!again || answer.http.status == 206) {
      OFFPRINT_TRY_ASSIGN(bool all, take(request, answer));
      if (all) return std::move(content_);
      again = answer.http.failure.empty() || answer.http.may_repeat;
    }
    if (content_.size() > had) patience.renew();
    if (answer.http.failure.empty() && answer.ok()) answer.http.failure = "the body is short";
    if (answer.ok()) answer.status = 0;
    if (!again || !patience.wait(client_.transport(), &stop_))
      return fail(client_.error_of(request, answer));
  }
}

class S3Download final : public ltx::ByteSource {
 public:
  S3Download(S3Client& client, std::string key, std::uint64_t offset)
      : client_(client), key_(std::move(key)), next_offset_(offset) {}
  ~S3Download() override {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  Result<> open();
  Result<std::size_t> read(std::span<std::uint8_t> to) override;

 private:
  void work();
  // The range that comes next in the file is here, or will never be.
  Result<> next_range();

  S3Client& client_;
  const std::string key_;
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
  ObjectState object_;  // constant after open()

  // The reader's.
  Bytes current_;
  std::size_t taken_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t next_offset_;             // of the range that no worker has taken
  std::uint64_t read_offset_ = 0;         // of the range that the reader needs next
  std::map<std::uint64_t, Bytes> ready_;  // by offset
  std::optional<Error> error_;
};

Result<> S3Download::open() {
  RangeFetch fetch(client_, key_, {}, stop_);
  OFFPRINT_TRY_ASSIGN(current_, fetch.run(next_offset_, client_.options().range_bytes));
  object_ = fetch.state();
  next_offset_ += current_.size();
  read_offset_ = next_offset_;
  if (!object_.total || next_offset_ >= *object_.total) return {};
  std::uint64_t range = client_.options().range_bytes;
  std::uint64_t left = (*object_.total - next_offset_ + range - 1) / range;
  for (std::size_t i = 0; i < std::min<std::uint64_t>(left, client_.options().ranges); ++i)
    workers_.emplace_back([this] { work(); });
  return {};
}

void S3Download::work() {
  const std::uint64_t range = client_.options().range_bytes;
  const std::uint64_t ahead_max = 2 * range * client_.options().ranges;
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] {
      return stop_ || error_ || next_offset_ >= *object_.total ||
             next_offset_ < read_offset_ + ahead_max;
    });
    if (stop_ || error_ || next_offset_ >= *object_.total) return;
    std::uint64_t begin = next_offset_;
    std::uint64_t size = std::min(range, *object_.total - begin);
    next_offset_ += size;
    lock.unlock();
    RangeFetch fetch(client_, key_, object_, stop_);
    Result<Bytes> content = fetch.run(begin, size);
    lock.lock();
    if (content) {
      ready_.emplace(begin, *std::move(content));
    } else if (!error_) {
      error_ = content.error();
    }
    changed_.notify_all();
  }
}

Result<> S3Download::next_range() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return ready_.contains(read_offset_) || error_; });
  auto it = ready_.find(read_offset_);
  if (it == ready_.end()) return fail(*error_);
  current_ = std::move(it->second);
  taken_ = 0;
  ready_.erase(it);
  read_offset_ += current_.size();
  changed_.notify_all();
  return {};
}

Result<std::size_t> S3Download::read(std::span<std::uint8_t> to) {
  std::size_t got = 0;
  while (got < to.size()) {
    if (client_.transport().cancelled()) return fail(Code::kUnavailable, "cancelled");
    if (taken_ == current_.size()) {
      if (!object_.total || read_offset_ >= *object_.total) break;
      OFFPRINT_TRY(next_range());
    }
    std::size_t count = std::min(to.size() - got, current_.size() - taken_);
    std::copy_n(current_.begin() + static_cast<std::ptrdiff_t>(taken_), count,
                to.begin() + static_cast<std::ptrdiff_t>(got));
    taken_ += count;
    got += count;
  }
  return got;
}

}  // namespace

Result<std::unique_ptr<ltx::ByteSource>> open_s3_download(S3Client& client, std::string key,
                                                          std::uint64_t offset) {
  auto download = std::make_unique<S3Download>(client, std::move(key), offset);
  OFFPRINT_TRY(download->open());
  return download;
}

}  // namespace offprint::archive
