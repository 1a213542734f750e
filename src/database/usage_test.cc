// What databases were used for, month by month.
#include "database/usage.h"

#include <atomic>
#include <thread>

#include "database/testing.h"

namespace offprint::database::testing {
namespace {

TEST(Months, AreTextsThatSort) {
  EXPECT_EQ(month_of(0), "1970-01");
  EXPECT_EQ(month_of(next_month_ms(0) - 1), "1970-01");
  EXPECT_EQ(month_of(next_month_ms(0)), "1970-02");
  EXPECT_EQ(months_before("2026-11", 12), "2025-11");
  EXPECT_EQ(months_before("2026-01", 1), "2025-12");
  EXPECT_EQ(months_before("2026-01", 0), "2026-01");
  EXPECT_TRUE(is_month("2026-12"));
  for (const char* bad :
       {"", "2026", "2026-13", "2026-00", "2026-1", "2026-111", "2026/11", "20x6-11"})
    EXPECT_FALSE(is_month(bad)) << bad;
}

TEST(UsageOfAll, NothingIsLostWhileItIsTaken) {
  UsageOfAll all;
  std::atomic<bool> stop = false;
  std::thread user([&] {
    for (int i = 0; i < 2'000; ++i) {
      auto counters = all.of(7, "a");
      counters->add(1, 2);
    }
    stop = true;
  });
  UsageCount sum;
  auto take = [&] {
    for (const auto& used : all.take()) {
      EXPECT_EQ(used.name, "a");
      sum.queries += used.count.queries;
      sum.rows_read += used.count.rows_read;
      sum.rows_written += used.count.rows_written;
    }
  };
  while (!stop) take();
  user.join();
  take();
  EXPECT_EQ(sum, (UsageCount{2'000, 2'000, 4'000}));
  EXPECT_TRUE(all.take().empty());
}

class UsageTest : public StoreTest {
 protected:
  void SetUp() override {
    options_.wall_clock_ms = [this] { return now_ms_.load(); };
    StoreTest::SetUp();
  }
  void TearDown() override {
    store_.reset();  // it asks this clock
    StoreTest::TearDown();
  }
  void set_month(const std::string& month) {
    now_ms_ = parse_rfc3339(month + "-15T00:00:00Z").value();
  }
  // "a: queries rows_written" a line.
  std::string of_month(const std::string& month) {
    UsageQuery query;
    query.month = month;
    auto records = store_->usage(query);
    EXPECT_TRUE(records);
    std::string text;
    for (const auto& each : records.value())
      text += fmt::format("{}{}: {} {}\n", each.name, each.dropped ? " (dropped)" : "",
                          each.count.queries, each.count.rows_written);
    return text;
  }
  std::string months_of(const std::string& database) {
    std::string text;
    auto records = store_->usage(name(database)).value();
    for (const auto& each : records)
      text += fmt::format("{}: {}\n", each.month, each.count.queries);
    return text;
  }

  std::atomic<std::int64_t> now_ms_ = 1'800'000'000'000;  // 2027-01
};

TEST_F(UsageTest, IsKeptOverRestartsAndAddsUp) {
  create("a");
  create("b");
  run("a", {"CREATE TABLE t(v)", "INSERT INTO t VALUES (1), (2)"});
  EXPECT_EQ(of_month("2027-01"), "a: 2 2\n");
  run("a", {"INSERT INTO t VALUES (3)"});
  open();
  EXPECT_EQ(query("a", "SELECT count(*) FROM t"), "3");
  run("b", {"SELECT 1"});
  EXPECT_EQ(of_month("2027-01"), "a: 4 3\nb: 1 0\n");
  auto record = store_->usage(name("a")).value().at(0);
  EXPECT_EQ(record.size_bytes, 8192u);
  EXPECT_EQ(record.size_bytes_max, 8192u);
  EXPECT_GT(record.count.rows_read, 0u);
  EXPECT_FALSE(store_->usage(name("none")));
}

TEST_F(UsageTest, MonthsAreKeptApartAndThirteenOfThem) {
  create("a");
  run("a", {"SELECT 1"});
  set_month("2027-02");  // what was counted until somebody looked is the month before's
  EXPECT_EQ(of_month("2027-01"), "a: 1 0\n");
  run("a", {"SELECT 1", "SELECT 2"});
  EXPECT_EQ(months_of("a"), "2027-02: 2\n2027-01: 1\n");
  set_month("2028-01");
  run("a", {"SELECT 1"});
  EXPECT_EQ(of_month("2027-01"), "a: 1 0\n");
  EXPECT_EQ(of_month("2027-02"), "a: 3 0\n");
  run("a", {"SELECT 1"});
  EXPECT_EQ(of_month("2028-01"), "a: 1 0\n");
  set_month("2028-02");
  EXPECT_EQ(of_month("2028-02"), "");
  EXPECT_EQ(of_month("2027-01"), "");
  EXPECT_EQ(of_month("2027-02"), "a: 3 0\n");
  EXPECT_EQ(months_of("a"), "2028-01: 1\n2027-02: 3\n");
}

TEST_F(UsageTest, OfDroppedDatabasesStays) {
  create("a");
  run("a", {"CREATE TABLE t(v)"});
  ASSERT_TRUE(store_->drop(name("a")));
  create("a");
  run("a", {"SELECT 1", "SELECT 2"});
  EXPECT_EQ(of_month("2027-01"), "a (dropped): 1 0\na: 2 0\n");
  EXPECT_EQ(months_of("a"), "2027-01: 2\n");
  open();
  EXPECT_EQ(of_month("2027-01"), "a (dropped): 1 0\na: 2 0\n");
}

TEST_F(UsageTest, IsListedPageByPage) {
  for (const char* text : {"a", "shop/a", "shop/b", "shop-a"}) {
    create(text);
    run(text, {"SELECT 1"});
  }
  UsageQuery query;
  query.month = "2027-01";
  query.prefix = "shop/";
  query.limit = 1;
  auto first = store_->usage(query).value();
  ASSERT_EQ(first.size(), 1u);
  EXPECT_EQ(first[0].name, "shop/a");
  query.after_name = first[0].name;
  query.after_id = first[0].database_id;
  query.limit = 10;
  auto rest = store_->usage(query).value();
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_EQ(rest[0].name, "shop/b");
}

TEST_F(UsageTest, ScriptsCount) {
  create("a");
  class ScriptRequest final : public Request {
   public:
    explicit ScriptRequest(std::promise<void>& done) : done_(done) {}
    void run(Session& session) override {
      EXPECT_TRUE(session.execute_script("CREATE TABLE t(v); INSERT INTO t VALUES (1), (2); "));
    }
    void done(Outcome) override { done_.set_value(); }
    bool likely_read_only() const override { return false; }

   private:
    std::promise<void>& done_;
  };
  std::promise<void> done;
  store_->submit(name("a"), std::make_unique<ScriptRequest>(done));
  done.get_future().wait();
  EXPECT_EQ(of_month("2027-01"), "a: 2 2\n");
}

// Nobody asked, and the process did not stop in order.
TEST_F(UsageTest, IsKeptAtIntervals) {
  options_.usage_flush_ms = 1;
  open();
  create("a");
  run("a", {"SELECT 1"});
  std::uint64_t before = store_->metrics().journal_bytes;
  Deadline until = SteadyClock::now() + std::chrono::seconds(20);
  while (store_->metrics().journal_bytes == before && SteadyClock::now() < until)
    run("a", {"SELECT 1"});
  EXPECT_GT(store_->metrics().journal_bytes, before);
}

}  // namespace
}  // namespace offprint::database::testing
