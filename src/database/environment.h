#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "database/archive_wait.h"
#include "database/commit_log.h"
#include "database/executor.h"
#include "database/insights.h"
#include "database/slow_log.h"
#include "database/statement_meter.h"
#include "database/statement_totals.h"
#include "database/store.h"
#include "database/subscribers.h"
#include "database/usage.h"
#include "database/watchdog.h"
#include "journal/journal.h"

namespace offprint::database {

// Removes a database's file and what SQLite keeps beside it, all that can be; the first error.
Result<> remove_database_files(FileSystem& files, const std::string& path);

// What all databases of a node share.
struct Environment {
  struct Counters {
    std::atomic<std::uint64_t> open_databases{0}, requests_read{0}, requests_write{0}, batches{0},
        transactions{0}, rejected{0}, offenders{0}, checkpoints{0}, recoveries{0};
    std::atomic<std::int64_t> queue_length{0};
  };

  explicit Environment(StoreOptions store_options)
      : options(std::move(store_options)),
        slow_log(options.slow_ms),
        writers(options.writer_threads),
        helpers(options.helper_threads),
        long_reads(options.long_read_threads) {}

  // Ends the process, or whatever the options say instead: nothing may be answered any more.
  void fatal(const Error& error);
  // What the counters say.
  StoreMetrics metrics() const;
  // Store::set_schema_guard. Null: none.
  std::shared_ptr<SchemaGuard> schema_guard() const;
  void set_schema_guard(std::shared_ptr<SchemaGuard> guard);
  // Store::post_piece.
  void post_piece(std::chrono::nanoseconds rest, std::function<void()> work);
  // For statements of that database.
  std::shared_ptr<StatementMeter> meter_of(std::uint64_t database_id, const std::string& name);

  StoreOptions options;
  std::string vfs;  // name of the capture VFS
  std::unique_ptr<journal::Journal> journal;
  std::unique_ptr<JournalLog> own_log;  // of a single node
  CommitLog* log = nullptr;             // decides the transactions
  Counters counters;
  std::atomic<std::uint64_t> transactions_seen{0};              // by post_piece()
  std::atomic<SteadyClock::time_point> transactions_seen_at{};  // that those became more
  mutable std::mutex schema_guard_mutex;
  std::shared_ptr<SchemaGuard> guard;  // guarded by schema_guard_mutex
  InsightsOfAll insights;
  UsageOfAll usage;
  StatementTotals statement_totals;
  SlowLog slow_log;
  Subscribers<std::string, journal::Lsn> committed;  // Store::subscribe_commits
  Subscribers<std::string> stopped;                  // Store::subscribe_stopped
  // Called (on a writer thread, must be quick) after transactions: frees journal segments when it
  // is time.
  std::function<void()> upkeep;
  std::atomic<bool> leaving{false};      // Store::set_leaving
  std::atomic<int> held_for_writing{0};  // interactive transactions that have a write slot
  Timers timers;
  AnswersInWaiting answers{timers};
  Watchdog watchdog;
  ThreadPool writers;
  ThreadPool helpers;
  FairPool long_reads;
};

}  // namespace offprint::database
