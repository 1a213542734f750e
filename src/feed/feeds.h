#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "feed/database_feed.h"

namespace offprint::feed {

// The feeds of all databases of a node; one lives as long as somebody holds it. Thread: any.
class Feeds {
 public:
  explicit Feeds(database::Store& store) : shared_(new FeedShared{store}) {}
  explicit Feeds(std::shared_ptr<FeedShared> shared) : shared_(std::move(shared)) {}
  ~Feeds() { stop(); }
  Feeds(const Feeds&) = delete;
  Feeds& operator=(const Feeds&) = delete;

  // Blocks. kNotFound; kUnavailable after stop().
  Result<std::shared_ptr<DatabaseFeed>> open(const database::DatabaseName& name);
  FeedShared& shared() { return *shared_; }
  // Of those that somebody holds.
  std::size_t count();
  // Before the store goes, and after all listeners have gone.
  void stop();

 private:
  const std::shared_ptr<FeedShared> shared_;
  std::mutex mutex_;
  std::map<std::string, std::weak_ptr<DatabaseFeed>> feeds_;  // guarded by mutex_
  bool stopped_ = false;                                      // guarded by mutex_
};

}  // namespace offprint::feed
