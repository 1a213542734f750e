#include "database/slow_log.h"

#include <fmt/format.h>

#include "base/log.h"

namespace offprint::database {
namespace {

constexpr int kLinesMax = 60;  // a minute
constexpr std::size_t kTextMax = 300;

}  // namespace

SlowLog::SlowLog(int slow_ms, Write write)
    : slow_(std::chrono::milliseconds(slow_ms)),
      write_(write ? std::move(write) : [](const std::string& line) { log::warn("{}", line); }) {}

void SlowLog::note(const std::string& database, const SlowStatement& statement, Deadline now) {
  count_.fetch_add(1, std::memory_order_relaxed);
  std::lock_guard lock(mutex_);
  if (now - minute_began_ >= std::chrono::minutes(1) || lines_ == 0) {
    minute_began_ = now;
    lines_ = 0;
  }
  if (lines_ == kLinesMax) {
    ++without_line_;
    return;
  }
  ++lines_;
  std::string more;
  if (without_line_ > 0) more = fmt::format(" ({} more before it have no line)", without_line_);
  without_line_ = 0;
  write_(fmt::format("slow statement{} in '{}': {} ms, {} rows read, {} written{}: {}{}", more,
                     database, statement.time_us / 1000, statement.rows_read,
                     statement.rows_written, statement.failed ? ", failed" : "",
                     statement.sql.substr(0, kTextMax),
                     statement.sql.size() > kTextMax ? " …" : ""));
}

}  // namespace offprint::database
