#include "database/environment.h"

#include <algorithm>
#include <cstdlib>

#include "base/log.h"

namespace offprint::database {

Result<> remove_database_files(FileSystem& files, const std::string& path) {
  Result<> first;
  for (const char* suffix : {"-wal", "-shm", "-journal", ""}) {
    if (Result<> removed = files.remove(path + suffix); !removed && first)
      first = std::move(removed);
  }
  return first;
}

void Environment::fatal(const Error& error) {
  if (options.on_fatal) return options.on_fatal(error);
  log::error("stopping at once, to recover at the next start: {}", error.message());
  std::_Exit(1);
}

StoreMetrics Environment::metrics() const {
  StoreMetrics metrics;
  metrics.open_databases = counters.open_databases;
  metrics.requests_read = counters.requests_read;
  metrics.requests_write = counters.requests_write;
  metrics.batches = counters.batches;
  metrics.transactions = counters.transactions;
  metrics.rejected = counters.rejected;
  metrics.offenders = counters.offenders;
  metrics.checkpoints = counters.checkpoints;
  metrics.recoveries = counters.recoveries;
  metrics.queue_length =
      static_cast<std::uint64_t>(std::max<std::int64_t>(0, counters.queue_length));
  metrics.journal_syncs = journal->sync_count();
  metrics.journal_disk_bytes = journal->disk_bytes();
  metrics.statements = statement_totals.read();
  metrics.statements.slow = slow_log.count();
  return metrics;
}

void Environment::post_piece(std::chrono::nanoseconds rest, std::function<void()> work) {
  constexpr std::chrono::milliseconds kRecent{100};
  std::uint64_t count = counters.transactions;
  SteadyClock::time_point now = SteadyClock::now();
  if (transactions_seen.exchange(count) != count) transactions_seen_at = now;
  if (now - transactions_seen_at.load() > kRecent) return helpers.post(std::move(work));
  timers.at(now + rest, [this, work = std::move(work)] { helpers.post(work); });
}

std::shared_ptr<SchemaGuard> Environment::schema_guard() const {
  std::lock_guard lock(schema_guard_mutex);
  return guard;
}

void Environment::set_schema_guard(std::shared_ptr<SchemaGuard> next) {
  std::lock_guard lock(schema_guard_mutex);
  guard = std::move(next);
}

std::shared_ptr<StatementMeter> Environment::meter_of(std::uint64_t database_id,
                                                      const std::string& name) {
  return std::make_shared<StatementMeter>(name, insights.of(database_id),
                                          usage.of(database_id, name), statement_totals, slow_log);
}

}  // namespace offprint::database
