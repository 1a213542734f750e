#include "main/lag_watch.h"

#include <algorithm>

namespace offprint {

LagWatch::LagWatch(replica::FollowerEvents& events, std::chrono::milliseconds max_lag,
                   std::function<void()> stop)
    : events_(events), max_lag_(max_lag), stop_(std::move(stop)) {
  if (max_lag_.count() > 0) thread_ = std::thread([this] { watch(); });
}

LagWatch::~LagWatch() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::optional<std::chrono::milliseconds> LagWatch::stopped_at() const {
  std::lock_guard lock(mutex_);
  return stopped_at_;
}

void LagWatch::applied(const Applied& applied) {
  here_ = applied.position;
  was_current(SteadyClock::now() - std::chrono::milliseconds(applied.lag_ms));
  events_.applied(applied);
}

void LagWatch::heartbeat(const Position& primary, std::int64_t unix_ms) {
  if (here_.bookmark() == primary.bookmark()) was_current(SteadyClock::now());
  events_.heartbeat(primary, unix_ms);
}

void LagWatch::caught_up(const Position& position) {
  here_ = position;
  {
    std::lock_guard lock(mutex_);
    current_at_ = SteadyClock::now();
  }
  changed_.notify_all();
  events_.caught_up(position);
}

void LagWatch::was_current(SteadyClock::time_point at) {
  std::lock_guard lock(mutex_);
  if (current_at_) current_at_ = std::max(*current_at_, at);
}

void LagWatch::watch() {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    if (!current_at_) {
      changed_.wait(lock);
      continue;
    }
    const auto until = *current_at_ + max_lag_;
    if (SteadyClock::now() < until) {
      changed_.wait_until(lock, until);
      continue;
    }
    stopped_at_ =
        std::chrono::duration_cast<std::chrono::milliseconds>(SteadyClock::now() - *current_at_);
    lock.unlock();
    return stop_();
  }
}

}  // namespace offprint
