#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/clock.h"

// What statements cost, by their normalised text. docs/protocol/http.md, "Insights".
namespace offprint::database {

// The text with literals as "?", lists of them as one, without comments and with single blanks; cut
// at 1,000 bytes. Appends to `to`.
void normalise_sql(std::string_view sql, std::string& to);

struct StatementSample {
  std::chrono::nanoseconds time{};
  std::uint64_t rows_read = 0;  // an estimate
  std::uint64_t rows_written = 0;
  bool failed = false;
  bool is_control = false;  // of transactions: BEGIN and its like
};

struct SlowStatement {
  std::int64_t at_ms = 0;  // when it ended, Unix time
  std::string sql;         // normalised
  std::uint64_t time_us = 0, rows_read = 0, rows_written = 0;
  bool failed = false;
};

struct StatementInsight {
  std::string sql;
  std::uint64_t count = 0, errors = 0, rows_read = 0, rows_written = 0;
  std::uint64_t time_us_total = 0, time_us_max = 0;
  std::uint64_t time_us_p50 = 0, time_us_p99 = 0;  // within a fifth
};

// The statements of one database in windows of an hour, the newest 24 of them. Bounded: 100 texts a
// window, those that came last. Lost when the process ends. Thread: any.
class StatementInsights {
 public:
  explicit StatementInsights(std::atomic<std::int64_t>& entries) : entries_(entries) {}
  ~StatementInsights();
  StatementInsights(const StatementInsights&) = delete;
  StatementInsights& operator=(const StatementInsights&) = delete;

  void record(std::string_view sql, const StatementSample& sample);
  // What began at `since_ms` (Unix time) or later, by hours; most time first.
  std::vector<StatementInsight> read(std::int64_t since_ms, std::size_t limit) const;

  // The last 100 are kept.
  void add_slow(SlowStatement statement);
  // Newest first.
  std::vector<SlowStatement> slow(std::size_t limit) const;

 private:
  static constexpr std::size_t kWindowsMax = 24;
  static constexpr std::size_t kTextsMax = 100;
  static constexpr std::size_t kSlowMax = 100;
  static constexpr std::size_t kBuckets = 72;  // four an octave from 1 µs on

  struct Entry {
    std::string sql;
    std::uint64_t count = 0, errors = 0, rows_read = 0, rows_written = 0;
    std::uint64_t time_ns = 0, time_ns_max = 0;
    std::array<std::uint32_t, kBuckets> times{};
  };
  struct Window {
    std::int64_t hour = 0;
    std::list<Entry> entries;  // used last first
    std::unordered_map<std::string_view, std::list<Entry>::iterator> by_sql;
  };
  static std::size_t bucket_of(std::uint64_t time_us);
  static std::uint64_t top_of(std::size_t bucket);
  Window& window_now();
  Entry& entry_of(Window& window, const std::string& sql);

  std::atomic<std::int64_t>& entries_;  // of all databases
  mutable std::mutex mutex_;
  std::list<Window> windows_;       // newest first; guarded by mutex_
  std::deque<SlowStatement> slow_;  // newest last; guarded by mutex_
};

// Those of all databases, within a bound: the ones used longest ago are forgotten. Thread: any.
class InsightsOfAll {
 public:
  // Made when there is none.
  std::shared_ptr<StatementInsights> of(std::uint64_t database_id);
  // Null when nothing is known.
  std::shared_ptr<StatementInsights> find(std::uint64_t database_id);
  void forget(std::uint64_t database_id);

 private:
  static constexpr std::int64_t kEntriesMax = 50'000;  // some 40 MB

  struct Known {
    std::uint64_t id;
    std::shared_ptr<StatementInsights> insights;
  };
  std::atomic<std::int64_t> entries_{0};
  std::mutex mutex_;
  std::list<Known> known_;  // opened last first
  std::unordered_map<std::uint64_t, std::list<Known>::iterator> by_id_;
};

}  // namespace offprint::database
