#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace offprint::cluster {

// A thread of a coordinator: runs tasks in the order they were posted, and timers.
class CoordinatorLoop {
 public:
  using Task = std::function<void()>;
  using TimerId = std::pair<Deadline, std::uint64_t>;

  // Where the thread rests while nothing is due.
  class Waiter {
   public:
    virtual ~Waiter() = default;
    // Returns at `until`, after wake(), or earlier when it has work of its own, which it does.
    virtual void wait(std::optional<Deadline> until) = 0;
    // From any thread; not lost when nobody waits yet.
    virtual void wake() = 0;
  };

  explicit CoordinatorLoop(Waiter& waiter);  // `waiter` outlives it
  ~CoordinatorLoop();                        // stop() was called
  CoordinatorLoop(const CoordinatorLoop&) = delete;
  CoordinatorLoop& operator=(const CoordinatorLoop&) = delete;

  // Any thread. After stop() a task still runs if a task of the last round posted it.
  void post(Task task);
  // Loop thread only.
  TimerId at(Deadline time, Task task);
  void cancel(TimerId id) { timers_.erase(id); }
  // Not from the loop's thread: runs what was posted, then `last`, then what those posted, drops
  // the timers and ends the thread.
  void stop(Task last);

 private:
  void run();
  void run_posted();
  void run_due();

  Waiter& waiter_;
  std::map<TimerId, Task> timers_;  // loop thread
  std::uint64_t next_timer_ = 0;
  std::mutex mutex_;
  std::vector<Task> posted_;  // guarded by mutex_
  bool stopping_ = false;     // guarded by mutex_
  std::thread thread_;
};

// Rests on a condition variable.
class PlainWaiter final : public CoordinatorLoop::Waiter {
 public:
  void wait(std::optional<Deadline> until) override;
  void wake() override;

 private:
  std::mutex mutex_;
  std::condition_variable signal_;
  bool woken_ = false;
};

}  // namespace offprint::cluster
