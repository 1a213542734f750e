#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "replica/follower.h"

namespace offprint {

// Stops a follower whose file is too old: it had all that the primary had, and does not for longer
// than that. Passes on what it is told. Thread: events as FollowerEvents says; the rest any.
class LagWatch final : public replica::FollowerEvents {
 public:
  // `stop` is called at most once, on a thread of its own. `max_lag` zero: nothing is watched.
  LagWatch(replica::FollowerEvents& events, std::chrono::milliseconds max_lag,
           std::function<void()> stop);
  ~LagWatch() override;
  LagWatch(const LagWatch&) = delete;
  LagWatch& operator=(const LagWatch&) = delete;

  // How old the file was when it was stopped for that.
  std::optional<std::chrono::milliseconds> stopped_at() const;

  void connected(const std::string& server) override { events_.connected(server); }
  void snapshot_progress(std::uint64_t pages, std::uint64_t pages_total) override {
    events_.snapshot_progress(pages, pages_total);
  }
  void source(const Bookmark& source) override { events_.source(source); }
  void applied(const Applied& applied) override;
  void heartbeat(const Position& primary, std::int64_t unix_ms) override;
  void caught_up(const Position& position) override;
  void verified(bool equal, const std::string& what) override { events_.verified(equal, what); }
  void resync(const std::string& why) override { events_.resync(why); }
  void delta_refused(const std::string& why) override { events_.delta_refused(why); }
  void interrupted(const Error& error, int retry_ms) override {
    events_.interrupted(error, retry_ms);
  }
  void pinned(std::uint64_t bytes) override { events_.pinned(bytes); }

 private:
  void watch();
  void was_current(SteadyClock::time_point at);

  replica::FollowerEvents& events_;
  const std::chrono::milliseconds max_lag_;
  const std::function<void()> stop_;
  Position here_;  // on the thread of events
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_. When the file last had everything; nothing: not yet.
  std::optional<SteadyClock::time_point> current_at_;
  std::optional<std::chrono::milliseconds> stopped_at_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace offprint
