#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "database/insights.h"

namespace offprint::database {

// A line in the log for each slow statement, 60 a minute at most: some 40 MB a day. How many more
// there were is told with the next one. Thread: any.
class SlowLog {
 public:
  using Write = std::function<void(const std::string& line)>;
  // 0: no statement is slow. Without `write` lines go to the log, as warnings.
  explicit SlowLog(int slow_ms, Write write = {});

  bool is_slow(std::chrono::nanoseconds time) const { return slow_.count() > 0 && time >= slow_; }
  void note(const std::string& database, const SlowStatement& statement,
            Deadline now = SteadyClock::now());
  // All of them, also those without a line.
  std::uint64_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  const std::chrono::nanoseconds slow_;
  const Write write_;
  std::atomic<std::uint64_t> count_{0};
  std::mutex mutex_;
  // --- guarded by mutex_
  Deadline minute_began_{};
  int lines_ = 0;  // in this minute
  std::uint64_t without_line_ = 0;
};

}  // namespace offprint::database
