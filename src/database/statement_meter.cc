#include "database/statement_meter.h"

#include "base/clock.h"

namespace offprint::database {

void StatementMeter::note_slow(std::string_view sql, const StatementSample& sample) {
  SlowStatement slow;
  slow.at_ms = unix_time_ms();
  normalise_sql(sql, slow.sql);
  slow.time_us = static_cast<std::uint64_t>(sample.time.count()) / 1000;
  slow.rows_read = sample.rows_read;
  slow.rows_written = sample.rows_written;
  slow.failed = sample.failed;
  slow_log_.note(database_, slow);
  insights_->add_slow(std::move(slow));
}

}  // namespace offprint::database
