#pragma once

#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "database/store.h"

namespace offprint::replica {

// Work on the store's helper threads, in order for each name. Must outlive all calls of `done`.
// Thread: any.
class NameQueue {
 public:
  // `store` must outlive it.
  explicit NameQueue(database::Store& store) : store_(store) {}
  // Runs `work`, which may block, after what was posted for the same name before; then `done`,
  // after which this object is not used by it any more.
  void post(const std::string& name, std::function<void()> work, std::function<void()> done);

 private:
  struct Item {
    std::function<void()> work, done;
  };
  void run(const std::string& name);

  database::Store& store_;
  std::mutex mutex_;
  std::map<std::string, std::deque<Item>> waiting_;  // the first is running; guarded by mutex_
};

}  // namespace offprint::replica
