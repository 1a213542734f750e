// What instances may use, and what becomes of those that nobody uses.
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
  template <class Condition>
  void wait_for(Condition condition) {
    for (Deadline until = SteadyClock::now() + std::chrono::seconds(20);
         SteadyClock::now() < until;) {
      if (condition()) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    FAIL() << "it does not come about";
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
  EXPECT_GE(publications_->totals().dropped, 1u);
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

}  // namespace
}  // namespace offprint::publication
