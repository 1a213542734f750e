// Statements that took long.
#include "database/slow_log.h"

#include "database/statement_totals.h"
#include "database/testing.h"

namespace offprint::database::testing {
namespace {

using std::chrono::milliseconds;

TEST(SlowLog, WritesALineEach) {
  std::vector<std::string> lines;
  SlowLog log(100, [&](const std::string& line) { lines.push_back(line); });
  EXPECT_FALSE(log.is_slow(milliseconds(99)));
  EXPECT_TRUE(log.is_slow(milliseconds(100)));
  EXPECT_FALSE(SlowLog(0).is_slow(std::chrono::hours(1)));
  SlowStatement statement;
  statement.sql = "SELECT ?";
  statement.time_us = 1'234'567;
  statement.rows_read = 7;
  log.note("shop/orders", statement);
  statement.failed = true;
  statement.sql = std::string(1000, 'x');
  log.note("a", statement);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0], "slow statement in 'shop/orders': 1234 ms, 7 rows read, 0 written: SELECT ?");
  EXPECT_EQ(lines[1], "slow statement in 'a': 1234 ms, 7 rows read, 0 written, failed: " +
                          std::string(300, 'x') + " …");
}

TEST(SlowLog, AStormIsCountedNotWritten) {
  std::vector<std::string> lines;
  SlowLog log(1, [&](const std::string& line) { lines.push_back(line); });
  Deadline now = SteadyClock::now();
  for (int i = 0; i < 1'000; ++i) log.note("a", {}, now + milliseconds(i));
  EXPECT_EQ(lines.size(), 60u);
  EXPECT_EQ(log.count(), 1'000u);
  log.note("a", {}, now + std::chrono::minutes(1));
  ASSERT_EQ(lines.size(), 61u);
  EXPECT_TRUE(lines.back().starts_with("slow statement (940 more before it have no line) in 'a'"))
      << lines.back();
  log.note("a", {}, now + std::chrono::minutes(1));
  EXPECT_TRUE(lines.back().starts_with("slow statement in 'a'")) << lines.back();
}

TEST(StatementTotals, AddUp) {
  StatementTotals totals;
  StatementSample sample;
  sample.rows_read = 2;
  sample.rows_written = 3;
  for (auto time : {std::chrono::microseconds(100), std::chrono::microseconds(101),
                    std::chrono::microseconds(60'000'000)}) {
    sample.time = time;
    totals.record(sample);
  }
  StatementSums sums = totals.read();
  EXPECT_EQ(sums.count(), 3u);
  EXPECT_EQ(sums.by_time[0], 1u);
  EXPECT_EQ(sums.by_time[1], 1u);
  EXPECT_EQ(sums.by_time.back(), 1u);
  EXPECT_EQ(sums.rows_read, 6u);
  EXPECT_EQ(sums.rows_written, 9u);
  EXPECT_EQ(sums.time_ns, 60'000'201'000u);
}

TEST(SlowStatements, AreBounded) {
  std::atomic<std::int64_t> entries = 0;
  {
    StatementInsights insights(entries);
    for (int i = 0; i < 1'000; ++i)
      insights.add_slow({.at_ms = i, .sql = fmt::format("SELECT {}", i)});
    EXPECT_EQ(entries, 100);
    auto newest = insights.slow(2);
    ASSERT_EQ(newest.size(), 2u);
    EXPECT_EQ(newest[0].sql, "SELECT 999");
    EXPECT_EQ(newest[1].sql, "SELECT 998");
  }
  EXPECT_EQ(entries, 0);
}

class SlowStatementsTest : public StoreTest {};

TEST_F(SlowStatementsTest, AreKeptAndCounted) {
  options_.slow_ms = 1;
  open();
  create("a");
  run("a", {"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) "
            "SELECT max(i) FROM n"});
  auto slow = store_->slow_statements(name("a"), 10).value();
  ASSERT_GE(slow.size(), 1u);
  EXPECT_TRUE(slow[0].sql.starts_with("WITH RECURSIVE n(i) AS (SELECT ? UNION")) << slow[0].sql;
  EXPECT_GE(slow[0].time_us, 1'000u);
  EXPECT_FALSE(slow[0].failed);
  EXPECT_GE(store_->metrics().statements.slow, 1u);
  EXPECT_GE(store_->metrics().statements.count(), 1u);
  EXPECT_FALSE(store_->slow_statements(name("none"), 10));
}

}  // namespace
}  // namespace offprint::database::testing
