#pragma once

#include <memory>
#include <string_view>

#include "database/insights.h"
#include "database/usage.h"

namespace offprint::database {

// Takes down what each statement of one database cost. Thread: any.
class StatementMeter {
 public:
  StatementMeter(std::shared_ptr<StatementInsights> insights, std::shared_ptr<UsageCounters> usage)
      : insights_(std::move(insights)), usage_(std::move(usage)) {}

  void record(std::string_view sql, const StatementSample& sample) {
    insights_->record(sql, sample);
    if (!sample.is_control) usage_->add(sample.rows_read, sample.rows_written);
  }

 private:
  const std::shared_ptr<StatementInsights> insights_;
  const std::shared_ptr<UsageCounters> usage_;
};

}  // namespace offprint::database
