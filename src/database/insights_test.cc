// What is gathered about statements.
#include "database/insights.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "database/testing.h"

namespace offprint::database {
namespace {

std::string normalised(std::string_view sql) {
  std::string text;
  normalise_sql(sql, text);
  return text;
}

TEST(Insights, TextsAreNormalised) {
  EXPECT_EQ(normalised("  SELECT *\n FROM t1 -- all\n WHERE a = 'it''s' AND b=-1.5e-3 /* x */;"),
            "SELECT * FROM t1 WHERE a = ? AND b=-?");
  EXPECT_EQ(normalised("INSERT INTO \"a 1\" VALUES (1, x'00', :n,?2, 'x'), (2,NULL)"),
            "INSERT INTO \"a 1\" VALUES (?), (?,NULL)");
  EXPECT_EQ(normalised("SELECT [x 1], `y'`, e1 FROM t WHERE i IN (1,2,3)"),
            "SELECT [x 1], `y'`, e1 FROM t WHERE i IN (?)");
  for (const char* broken : {"", "'", "\"", "x'", "/*", "--", "[", "1e", "''''"})
    EXPECT_LE(normalised(broken).size(), 2U) << broken;
  EXPECT_EQ(normalised(std::string(5000, 'a')).size(), 1000U);
}

TEST(Insights, AreBounded) {
  std::atomic<std::int64_t> entries = 0;
  {
    StatementInsights insights(entries);
    for (int i = 0; i < 1000; ++i) insights.record(fmt::format("SELECT c{}x", i), {});
    EXPECT_EQ(entries, 100);
    EXPECT_EQ(insights.read(0, 1000).size(), 100U);
    EXPECT_EQ(insights.read(0, 7).size(), 7U);
  }
  EXPECT_EQ(entries, 0);
}

TEST(Insights, TimesAreWithinAFifth) {
  std::atomic<std::int64_t> entries = 0;
  StatementInsights insights(entries);
  for (int i = 1; i <= 1000; ++i) {
    StatementSample sample;
    sample.time = std::chrono::microseconds(i * 10);
    insights.record("SELECT 1", sample);
  }
  auto list = insights.read(0, 10);
  ASSERT_EQ(list.size(), 1U);
  EXPECT_EQ(list[0].time_us_total, 5'005'000U);
  EXPECT_NEAR(static_cast<double>(list[0].time_us_p50), 5000, 1000);
  EXPECT_NEAR(static_cast<double>(list[0].time_us_p99), 9900, 2000);
}

class InsightsStoreTest : public testing::StoreTest {};

TEST_F(InsightsStoreTest, CountWhatRan) {
  create("a");
  run("a", {"CREATE TABLE t(v UNIQUE)", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)"});
  run("a", {"INSERT INTO t VALUES (2)"});
  EXPECT_EQ(query("a", "SELECT count(*) FROM t WHERE v > 0"), "2");
  std::string text;
  auto insights = store_->insights(name("a"), 0, 10).value();
  for (const auto& each : insights) {
    if (each.sql.starts_with("INSERT") || each.sql.starts_with("SELECT"))
      text += fmt::format("{}|{}|{}|{}\n", each.sql, each.count, each.errors, each.rows_written);
  }
  EXPECT_NE(text.find("INSERT INTO t VALUES (?)|3|1|2\n"), std::string::npos) << text;
  EXPECT_NE(text.find("SELECT count(*) FROM t WHERE v > ?|1|0|0\n"), std::string::npos) << text;
  EXPECT_TRUE(store_->insights(name("a"), unix_time_ms() + 7'200'000, 10)->empty());
  create("b");
  EXPECT_TRUE(store_->insights(name("b"), 0, 10)->empty());
  EXPECT_FALSE(store_->insights(name("none"), 0, 10));
}

}  // namespace
}  // namespace offprint::database
