// What instances may use, and what becomes of those that nobody uses.
#include <atomic>
#include <fstream>
#include <future>

#include <fmt/format.h>

#include "publication/publications_testing.h"

namespace offprint::publication {
namespace {

using database::DatabaseName;
using ::testing::HasSubstr;
using testing::PublicationsTest;

class UpkeepTest : public PublicationsTest {
 protected:
  void serve_with(const Publications::Options& options) {
    publications_.reset();
    publications_ = std::make_unique<Publications>(*store_, options);
  }
  void make_shop() {
    sql({"CREATE TABLE t(id INTEGER PRIMARY KEY, tenant INTEGER, text TEXT)",
         "CREATE INDEX t_tenant ON t(tenant)", "INSERT INTO t VALUES(1, 7, 'a'), (2, 8, 'b')"});
    auto made = publish("CREATE PUBLICATION p(t INTEGER) AS TABLE t(id, text) WHERE tenant = :t");
    ASSERT_TRUE(made) << made.error().message();
  }
  static std::string rows_sql(int tenant, int from, int count) {
    return fmt::format(
        "WITH RECURSIVE c(i) AS (SELECT {0} UNION ALL SELECT i + 1 FROM c WHERE i < {0} + {1} - 1) "
        "INSERT INTO t SELECT i, {2}, printf('%0500d', i) FROM c",
        from, count, tenant);
  }
  std::string open_error(const std::string& tenant) {
    auto opened = publications_->open(name("shop"), {"p", {}}, {{"t", tenant}});
    return opened ? "none" : opened.error().message();
  }
  std::string count(const DatabaseName& instance) {
    return rows(instance, "SELECT count(*) FROM t")[0];
  }
};

TEST_F(UpkeepTest, AnInstanceOverItsSizeStopsAndHurtsNobody) {
  make_shop();
  const DatabaseName seven = open_instance("p", {{"t", "7"}}),
                     eight = open_instance("p", {{"t", "8"}});
  ASSERT_TRUE(publications_->set_quota(name("shop"), {"p", 1}, {200'000, 0}));
  auto lease = publications_->lease(name("shop"), seven);
  auto other_lease = publications_->lease(name("shop"), eight);
  sql({rows_sql(7, 100, 200)});
  wait_for([&] { return count(seven) == "201"; });
  EXPECT_TRUE(lease->goes_on());
  sql({rows_sql(7, 1'000, 2'000), rows_sql(8, 5'000, 5)});
  wait_for([&] { return !lease->goes_on(); });
  EXPECT_EQ(count(seven), "201") << "it stays what it was";
  EXPECT_THAT(open_error("7"), HasSubstr("PUBLICATION_QUOTA: p@v1?t=7 has stopped: it would be "
                                         "larger than 200000 bytes"));
  EXPECT_FALSE(publications_->find_open(name("shop"), {"p", {}}, {{"t", "7"}}));
  wait_for([&] { return count(eight) == "6"; });
  EXPECT_TRUE(other_lease->goes_on());
  EXPECT_EQ(publications_->totals().stopped, 1u);
  // The quota is known after a start; a larger one makes it what it should be.
  other_lease.reset();
  lease.reset();
  serve_with({});
  EXPECT_THAT(open_error("7"), HasSubstr("PUBLICATION_QUOTA"));
  ASSERT_TRUE(publications_->set_quota(name("shop"), {"p", 1}, {}));
  EXPECT_EQ(open_error("7"), "none");
  EXPECT_EQ(count(seven), "2201");
  EXPECT_EQ(publications_->totals().stopped, 0u);
}

// Its source has all of it: it is neither served as it is nor given up.
TEST_F(UpkeepTest, AnInstanceWhoseFileWasChangedIsMadeAnew) {
  make_shop();
  sql({rows_sql(7, 100, 50)});
  const DatabaseName seven = open_instance("p", {{"t", "7"}});
  const auto before = store_->info(seven);
  const std::string file =
      fmt::format("{}/databases/{:016x}.db", options_.directory, store_->info(seven)->id);
  ASSERT_TRUE(store_->checkpoint(seven));
  publications_.reset();
  store_.reset();
  {
    std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(bytes)), {});
    const std::size_t at = text.find("000000000123");
    ASSERT_NE(at, std::string::npos);
    bytes.clear();
    bytes.seekp(static_cast<std::streamoff>(at));
    bytes.put('9');
  }
  open();
  serve();
  EXPECT_EQ(open_instance("p", {{"t", "7"}}), seven);
  EXPECT_NE(store_->info(seven)->bookmark.lineage, before->bookmark.lineage);
  EXPECT_EQ(store_->info(seven)->stopped, "");
  EXPECT_EQ(rows(seven, "SELECT text FROM t WHERE id = 123"),
            shop("SELECT text FROM t WHERE id = 123"));
  sql({"UPDATE t SET text = 'new' WHERE id = 123"});
  settle();
  EXPECT_EQ(rows(seven, "SELECT text FROM t WHERE id = 123"), std::vector<std::string>{"new"});
}

TEST_F(UpkeepTest, AnInstanceThatChangesTooFastStops) {
  make_shop();
  Publications::Options options;
  options.quota.rows_per_minute_max = 100;
  serve_with(options);
  sql({rows_sql(7, 100, 1'000)});
  const DatabaseName seven =
      open_instance("p", {{"t", "7"}});  // what it begins with does not count
  const DatabaseName eight = open_instance("p", {{"t", "8"}});
  sql({rows_sql(7, 2'000, 60)});
  settle();
  EXPECT_EQ(count(seven), "1061");
  auto lease = publications_->lease(name("shop"), seven);
  sql({rows_sql(7, 3'000, 60), rows_sql(8, 4'000, 60)});
  wait_for([&] { return !lease->goes_on(); });
  wait_for([&] { return count(eight) == "61"; });
  EXPECT_EQ(count(seven), "1061");
  EXPECT_THAT(open_error("7"), HasSubstr("more than 100 of its rows changed within a minute"));
  auto kept = publications_->instances_of(name("shop"));
  EXPECT_EQ(kept.size(), 2u);
}

TEST_F(UpkeepTest, WhatNobodyUsesIsLetGoAndComesBack) {
  make_shop();
  Publications::Options options;
  options.rest_instance_after = std::chrono::milliseconds(500);
  options.sweep_every = std::chrono::milliseconds(5);
  serve_with(options);
  const DatabaseName seven = open_instance("p", {{"t", "7"}});
  auto lease = publications_->lease(name("shop"), seven);
  open_instance("p", {{"t", "8"}});
  wait_for([&] { return publications_->totals().let_go == 1; });
  EXPECT_EQ(publications_->totals().instances, 1u) << "who is used stays";
  sql({"UPDATE t SET text = 'c'"});
  wait_for([&] { return rows(seven, "SELECT text FROM t")[0] == "c"; });
  lease.reset();
  wait_for([&] { return publications_->totals().instances == 0; });
  // It comes back as what it was, with what it missed as one transaction.
  const Position before = *store_->position(seven);
  sql({"UPDATE t SET text = 'd'", "UPDATE t SET text = 'e'", rows_sql(7, 10, 3)});
  EXPECT_EQ(store_->position(seven)->txid, before.txid) << "it is not kept up";
  EXPECT_EQ(open_instance("p", {{"t", "7"}}), seven);
  EXPECT_EQ(rows(seven, "SELECT text FROM t WHERE id = 1")[0], "e");
  EXPECT_EQ(store_->position(seven)->lineage, before.lineage);
  EXPECT_EQ(store_->position(seven)->txid.value, before.txid.value + 1);
}

TEST_F(UpkeepTest, FilesOfWhatNobodyUsesGoAndAnotherLineageComes) {
  make_shop();
  Publications::Options options;
  options.rest_instance_after = std::chrono::milliseconds(20);
  options.drop_instance_after = std::chrono::milliseconds(20);
  options.sweep_every = std::chrono::milliseconds(5);
  serve_with(options);
  const DatabaseName seven = open_instance("p", {{"t", "7"}});
  const Position before = *store_->position(seven);
  wait_for([&] { return !store_->info(seven).has_value(); });
  wait_for([&] { return publications_->totals().dropped == 1; });
  sql({"UPDATE t SET text = 'c'"});
  EXPECT_EQ(open_instance("p", {{"t", "7"}}), seven);
  auto lease = publications_->lease(name("shop"), seven);
  EXPECT_NE(store_->position(seven)->lineage, before.lineage);
  EXPECT_GT(store_->position(seven)->epoch.value, before.epoch.value);
  EXPECT_EQ(rows(seven, "SELECT text FROM t")[0], "c");
}

TEST_F(UpkeepTest, WhatInstancesWouldBeIsReckoned) {
  make_shop();
  sql({rows_sql(7, 100, 3'000), rows_sql(9, 10'000, 30'000)});
  auto info = publications_->check(
      name("shop"),
      "CREATE PUBLICATION q(t INTEGER) AS TABLE t(id, text) WHERE tenant = :t, "
      "INDEX t(text)");
  ASSERT_TRUE(info) << info.error().message();
  auto sampled = publications_->estimate(name("shop"), *info, {});
  ASSERT_TRUE(sampled) << sampled.error().message();
  std::map<std::string, std::uint64_t> found;
  for (const InstanceEstimate& each : *sampled) found[each.parameters] = each.rows;
  EXPECT_EQ(found["t=7"], 3'001u);
  EXPECT_EQ(found["t=9"], 30'000u);
  ASSERT_TRUE(publications_->create(name("shop"), info->stored.definition));
  auto twice = publications_->check(name("shop"),
                                    "CREATE PUBLICATION r AS VIEW v(tenant, n) KEY(tenant) AS "
                                    "SELECT tenant, id FROM t REFRESH FULL");
  ASSERT_TRUE(twice) << twice.error().message();
  EXPECT_THAT(publications_->estimate(name("shop"), *twice, {}).error().message(),
              HasSubstr("PUBLICATION_KEY: two rows of v have the same KEY"));
  for (const char* tenant : {"7", "9", "12345"}) {
    auto estimate = publications_->estimate(name("shop"), *info, {{"t", tenant}});
    ASSERT_TRUE(estimate && estimate->size() == 1);
    const DatabaseName made = open_instance("q", {{"t", tenant}});
    const auto there = store_->info(made).value();
    const double bytes = double(there.page_count) * there.page_size;
    EXPECT_NEAR(double((*estimate)[0].bytes), bytes, 0.15 * bytes + 8'192) << tenant;
    EXPECT_EQ(count(made), std::to_string((*estimate)[0].rows));
  }
}

// What never ends at one source holds up its own instances only, however many ask for it.
TEST_F(UpkeepTest, AStuckSourceKeepsNoOtherWaiting) {
  Publications::Options options;
  options.threads = 2;
  options.request_threads = 2;
  options.rest_after = std::chrono::milliseconds(5);
  options.sweep_every = std::chrono::milliseconds(5);
  options.rest_instance_after = options.drop_instance_after = std::chrono::milliseconds(0);
  serve_with(options);
  make_shop();
  ASSERT_EQ(refusal("CREATE PUBLICATION stuck(n INTEGER) AS VIEW v(x) KEY(x) AS WITH RECURSIVE "
                    "c(x) AS (SELECT :n UNION ALL SELECT x+1 FROM c) SELECT x FROM c WHERE x < 0 "
                    "REFRESH FULL"),
            "none");
  open_instance("p", {{"t", "7"}});  // it goes when nobody uses it, which has to wait
  std::atomic<int> ended = 0, taken = 0;
  auto ask = [&](int n) {
    return publications_->post(name("shop"), 0, [this, n, &ended] {
      (void)publications_->open(name("shop"), {"stuck", {}}, {{"n", std::to_string(n)}});
      ++ended;
    });
  };
  while (taken < 5'000 && ask(taken)) ++taken;
  EXPECT_GE(taken, 1'000);
  EXPECT_LE(taken, 1'002) << "what waits is bounded";
  EXPECT_THAT(ask(0).error().message(), HasSubstr("PUBLICATION_BUSY"));
  sql({"INSERT INTO t VALUES(3, 7, 'c')"});
  create("other");
  auto run_other = [&](const std::string& text) {
    for (const auto& answer : run("other", {text}).statements) EXPECT_EQ(answer.message, "");
  };
  run_other("CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
  ASSERT_TRUE(publications_->create(name("other"), "CREATE PUBLICATION q AS TABLE t(*)"));
  std::promise<Result<DatabaseName>> promise;
  auto opened = promise.get_future();
  ASSERT_TRUE(publications_->post(name("other"), 0, [&] {
    promise.set_value(publications_->open(name("other"), {"q", {}}, {}));
  }));
  ASSERT_EQ(opened.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  const DatabaseName copy = opened.get().value();
  auto lease = publications_->lease(name("other"), copy);
  for (int i = 1; i <= 20; ++i) {
    run_other(fmt::format("INSERT INTO t VALUES({}, 1)", i));
    wait_for([&] {
      if (count(copy) == std::to_string(i)) return true;
      // It may have been let go before its lease began: then it is what who asks again gets.
      if (lease->goes_on()) return false;
      (void)publications_->open(name("other"), {"q", {}}, {});
      lease = publications_->lease(name("other"), copy);
      return false;
    });
  }
  EXPECT_LE(publications_->instances_of(name("shop")).size(), 1u);  // it does not wait
  EXPECT_LE(publications_->instances().size(), 2u);
  EXPECT_EQ(ended, 0);
  publications_->stop();
  EXPECT_EQ(ended, taken);
}

}  // namespace
}  // namespace offprint::publication
