#pragma once

#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "base/clock.h"

namespace offprint::database {

// Looks after work that may forget the time: some of what SQLite does in one step (counting a large
// table) ends at an interrupt from another thread only. One thread, ten looks a second while there
// is anything to look after, asleep otherwise. Thread: any.
class Watchdog {
 public:
  class Watched {
   public:
    // Must be quick, and must not call the watchdog.
    virtual void look(Deadline now) = 0;

   protected:
    ~Watched() = default;
  };

  Watchdog() = default;
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void add(Watched& watched);
  // Afterwards it is not looked at any more.
  void remove(Watched& watched);

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<Watched*> watched_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace offprint::database
