#include "database/watchdog.h"

namespace offprint::database {
namespace {

constexpr std::chrono::milliseconds kPause{100};

}  // namespace

Watchdog::~Watchdog() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Watchdog::add(Watched& watched) {
  std::lock_guard lock(mutex_);
  watched_.insert(&watched);
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  if (watched_.size() == 1) changed_.notify_all();
}

void Watchdog::remove(Watched& watched) {
  std::lock_guard lock(mutex_);
  watched_.erase(&watched);
}

void Watchdog::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (watched_.empty()) {
      changed_.wait(lock, [this] { return stopping_ || !watched_.empty(); });
      continue;
    }
    changed_.wait_for(lock, kPause, [this] { return stopping_; });
    Deadline now = SteadyClock::now();
    for (Watched* watched : watched_) watched->look(now);
  }
}

}  // namespace offprint::database
