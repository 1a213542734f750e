#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

// What databases are used for, by calendar months (UTC). docs/protocol/http.md, "Usage".
namespace offprint::database {

struct UsageCount {
  std::uint64_t queries = 0;    // statements that ran
  std::uint64_t rows_read = 0;  // an estimate
  std::uint64_t rows_written = 0;
  bool operator==(const UsageCount&) const = default;
};

// One database in one month, as the catalog keeps it.
struct UsageRecord {
  std::string month;  // "2026-11"
  std::uint64_t database_id = 0;
  std::string name;
  UsageCount count;
  std::uint64_t size_bytes = 0;      // of the file when it was last used in that month …
  std::uint64_t size_bytes_max = 0;  // … and its greatest
  bool dropped = false;              // there is no such database any more
};

// Databases of a month by name and number: those behind `after_name` and `after_id`.
struct UsageQuery {
  std::string month;
  std::string prefix;
  std::string after_name;
  std::uint64_t after_id = UINT64_MAX;  // with it all of that name are behind
  std::size_t limit = 1'000;
};

// What one database was used for since it was last taken. Costs three additions a statement.
// Thread: any.
class alignas(64) UsageCounters {
 public:
  void add(std::uint64_t rows_read, std::uint64_t rows_written) {
    add({1, rows_read, rows_written});
  }
  void add(const UsageCount& count);
  UsageCount take();

 private:
  std::atomic<std::uint64_t> queries_{0}, rows_read_{0}, rows_written_{0};
};

// Those of all databases that were used since they were last taken. Thread: any.
class UsageOfAll {
 public:
  struct Used {
    std::uint64_t id = 0;
    std::string name;
    UsageCount count;
  };
  // Made when there are none.
  std::shared_ptr<UsageCounters> of(std::uint64_t database_id, const std::string& name);
  // What was not zero; it is zero then.
  std::vector<Used> take();
  // It could not be kept.
  void give_back(const Used& used);

 private:
  struct Known {
    std::string name;
    std::shared_ptr<UsageCounters> counters;
  };
  std::shared_ptr<UsageCounters> counters_of(std::uint64_t database_id, const std::string& name);

  std::mutex mutex_;
  std::unordered_map<std::uint64_t, Known> known_;  // guarded by mutex_
};

// "2026-11" of a Unix time.
std::string month_of(std::int64_t unix_ms);
// A text of that form that is a month.
bool is_month(std::string_view text);
// The month `count` before; `month` is one.
std::string months_before(const std::string& month, int count);
// Where the month after that of `unix_ms` begins.
std::int64_t next_month_ms(std::int64_t unix_ms);

}  // namespace offprint::database
