#include "archive/limited_store.h"

#include <algorithm>
#include <utility>

namespace offprint::archive {
namespace {

class LimitedSource final : public ltx::ByteSource {
 public:
  LimitedSource(LimitedStore& store, std::unique_ptr<ltx::ByteSource> from)
      : store_(store), from_(std::move(from)) {}
  Result<std::size_t> read(std::span<std::uint8_t> to) override {
    OFFPRINT_TRY_ASSIGN(const std::size_t got, from_->read(to));
    OFFPRINT_TRY(store_.wait_for(got));
    return got;
  }

 private:
  LimitedStore& store_;
  std::unique_ptr<ltx::ByteSource> from_;
};

}  // namespace

Result<std::unique_ptr<ltx::ByteSource>> LimitedStore::get(const std::string& key,
                                                           std::uint64_t offset) {
  OFFPRINT_TRY(wait_for(0));
  OFFPRINT_TRY_ASSIGN(auto source, store_.get(key, offset));
  return std::make_unique<LimitedSource>(*this, std::move(source));
}

Result<std::vector<ObjectInfo>> LimitedStore::list(const std::string& prefix) {
  OFFPRINT_TRY(wait_for(0));
  return store_.list(prefix);
}

void LimitedStore::cancel() {
  std::lock_guard lock(mutex_);
  cancelled_ = true;
  changed_.notify_all();
}

Result<> LimitedStore::wait_for(std::size_t bytes) {
  std::unique_lock lock(mutex_);
  const auto cost = std::chrono::nanoseconds(static_cast<std::int64_t>(
      1e9 * static_cast<double>(bytes) /
      static_cast<double>(std::max<std::uint64_t>(bytes_per_second_, 1))));
  const Deadline until = std::max(free_at_, SteadyClock::now()) + cost;
  free_at_ = until;
  if (bytes > 0) changed_.wait_until(lock, until, [this] { return cancelled_; });
  if (cancelled_) return fail(Code::kUnavailable, "cancelled");
  return {};
}

}  // namespace offprint::archive
