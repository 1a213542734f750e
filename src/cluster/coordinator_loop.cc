#include "cluster/coordinator_loop.h"

#include "base/assert.h"

namespace offprint::cluster {

CoordinatorLoop::CoordinatorLoop(Waiter& waiter) : waiter_(waiter), thread_([this] { run(); }) {}

CoordinatorLoop::~CoordinatorLoop() { OFFPRINT_ASSERT(!thread_.joinable()); }

void CoordinatorLoop::post(Task task) {
  {
    std::lock_guard lock(mutex_);
    posted_.push_back(std::move(task));
  }
  waiter_.wake();
}

CoordinatorLoop::TimerId CoordinatorLoop::at(Deadline time, Task task) {
  TimerId id{time, ++next_timer_};
  timers_.emplace(id, std::move(task));
  return id;
}

void CoordinatorLoop::stop(Task last) {
  OFFPRINT_ASSERT(std::this_thread::get_id() != thread_.get_id());
  {
    std::lock_guard lock(mutex_);
    posted_.push_back(std::move(last));
    stopping_ = true;
  }
  waiter_.wake();
  thread_.join();
}

void CoordinatorLoop::run_posted() {
  std::vector<Task> tasks;
  {
    std::lock_guard lock(mutex_);
    tasks.swap(posted_);
  }
  for (Task& task : tasks) task();
}

void CoordinatorLoop::run_due() {
  Deadline now = SteadyClock::now();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    Task task = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    task();
  }
}

void CoordinatorLoop::run() {
  for (;;) {
    run_posted();
    {
      std::lock_guard lock(mutex_);
      if (!posted_.empty()) continue;
      if (stopping_) break;
    }
    run_due();
    std::optional<Deadline> until;
    if (!timers_.empty()) until = timers_.begin()->first.first;
    {
      std::lock_guard lock(mutex_);
      if (!posted_.empty()) continue;
    }
    waiter_.wait(until);
  }
  timers_.clear();
}

void PlainWaiter::wait(std::optional<Deadline> until) {
  std::unique_lock lock(mutex_);
  if (until) {
    signal_.wait_until(lock, *until, [this] { return woken_; });
  } else {
    signal_.wait(lock, [this] { return woken_; });
  }
  woken_ = false;
}

void PlainWaiter::wake() {
  std::lock_guard lock(mutex_);
  woken_ = true;
  signal_.notify_all();
}

}  // namespace offprint::cluster
