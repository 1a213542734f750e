#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "database/insights.h"
#include "database/slow_log.h"
#include "database/statement_totals.h"
#include "database/usage.h"

namespace offprint::database {

// Takes down what each statement of one database cost. Thread: any.
class StatementMeter {
 public:
  // `totals` and `slow_log` must outlive it.
  StatementMeter(std::string database, std::shared_ptr<StatementInsights> insights,
                 std::shared_ptr<UsageCounters> usage, StatementTotals& totals, SlowLog& slow_log)
      : database_(std::move(database)),
        insights_(std::move(insights)),
        usage_(std::move(usage)),
        totals_(totals),
        slow_log_(slow_log) {}

  void record(std::string_view sql, const StatementSample& sample) {
    insights_->record(sql, sample);
    if (!sample.is_control) usage_->add(sample.rows_read, sample.rows_written);
    totals_.record(sample);
    if (slow_log_.is_slow(sample.time)) [[unlikely]]
      note_slow(sql, sample);
  }

 private:
  void note_slow(std::string_view sql, const StatementSample& sample);

  const std::string database_;
  const std::shared_ptr<StatementInsights> insights_;
  const std::shared_ptr<UsageCounters> usage_;
  StatementTotals& totals_;
  SlowLog& slow_log_;
};

}  // namespace offprint::database
