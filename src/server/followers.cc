#include "server/followers.h"

#include <algorithm>

#include "base/clock.h"

namespace offprint::server {
namespace {

constexpr std::size_t kGoneMax = 100;          // of a database
constexpr std::size_t kDatabasesMax = 10'000;  // of which those that nobody follows are forgotten

}  // namespace

std::unique_ptr<Followers::Seat> Followers::join(const std::string& database, std::string subject,
                                                 std::string address) {
  std::lock_guard lock(mutex_);
  if (known_.size() >= kDatabasesMax)
    std::erase_if(known_, [](const auto& each) { return each.second.connected.empty(); });
  Known& known = known_[database];
  // Who comes again is the one that went.
  std::erase_if(known.gone, [&](const Follower& each) {
    return each.subject == subject && each.address == address;
  });
  const std::int64_t now = unix_time_ms();
  known.connected.push_front({std::move(subject), std::move(address), now, now, {}, true});
  return std::make_unique<Seat>(*this, database, known.connected.begin());
}

void Followers::told(std::list<Follower>::iterator follower, const Bookmark& position) {
  std::lock_guard lock(mutex_);
  follower->position = position;
  follower->seen_ms = unix_time_ms();
}

void Followers::leave(const std::string& database, std::list<Follower>::iterator follower) {
  std::lock_guard lock(mutex_);
  Known& known = known_[database];
  follower->is_connected = false;
  follower->seen_ms = unix_time_ms();
  known.gone.splice(known.gone.begin(), known.connected, follower);
  if (known.gone.size() > kGoneMax) known.gone.pop_back();
}

std::vector<Followers::Follower> Followers::of(const std::string& database) const {
  std::lock_guard lock(mutex_);
  std::vector<Follower> list;
  auto found = known_.find(database);
  if (found == known_.end()) return list;
  for (const auto* each : {&found->second.connected, &found->second.gone})
    list.insert(list.end(), each->begin(), each->end());
  return list;
}

std::size_t Followers::count(const std::string& database) const {
  std::lock_guard lock(mutex_);
  auto found = known_.find(database);
  return found == known_.end() ? 0 : found->second.connected.size();
}

}  // namespace offprint::server
