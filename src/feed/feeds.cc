#include "feed/feeds.h"

namespace offprint::feed {

Result<std::shared_ptr<DatabaseFeed>> Feeds::open(const database::DatabaseName& name) {
  auto find = [&]() -> std::shared_ptr<DatabaseFeed> {
    auto found = feeds_.find(name.text());
    auto feed = found == feeds_.end() ? nullptr : found->second.lock();
    return feed && !feed->error() ? feed : nullptr;
  };
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return fail(Code::kUnavailable, "the server is stopping");
    if (auto feed = find()) return feed;
  }
  OFFPRINT_TRY_ASSIGN(auto made, DatabaseFeed::open(shared_, name));
  std::lock_guard lock(mutex_);
  if (stopped_) return fail(Code::kUnavailable, "the server is stopping");
  if (auto feed = find()) return feed;  // somebody was quicker
  std::erase_if(feeds_, [](const auto& each) { return each.second.expired(); });
  feeds_[name.text()] = made;
  return made;
}

std::size_t Feeds::count() {
  std::lock_guard lock(mutex_);
  std::size_t count = 0;
  for (const auto& [name, feed] : feeds_) count += feed.expired() ? 0 : 1;
  return count;
}

void Feeds::stop() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  shared_->timers.stop();
  shared_->catching_up.drain();
  shared_->followers.drain();
}

}  // namespace offprint::feed
