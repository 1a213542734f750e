// Instances against what their definitions say of the source, at each state.
#include "publication/publications.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "database/testing.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

using database::DatabaseName;
using ::testing::HasSubstr;

class PublicationsTest : public database::testing::StoreTest {
 protected:
  void SetUp() override {
    StoreTest::SetUp();
    create("shop");
    serve();
  }
  void TearDown() override {
    publications_.reset();
    StoreTest::TearDown();
  }
  void serve() { publications_ = std::make_unique<Publications>(*store_, Publications::Options()); }
  void sql(const std::vector<std::string>& statements) {
    auto answers = run("shop", statements);
    for (const auto& answer : answers.statements) ASSERT_EQ(answer.code, 0) << answer.message;
  }
  Result<PublicationInfo> publish(const std::string& text) {
    return publications_->create(name("shop"), text);
  }
  std::string refusal(const std::string& text) {
    auto published = publish(text);
    return published ? "none" : published.error().message();
  }
  using Given = std::vector<std::pair<std::string, std::string>>;
  DatabaseName open_instance(const std::string& publication, const Given& given = {}) {
    auto opened =
        publications_->open(name("shop"), PublicationName::parse(publication).value(), given);
    EXPECT_TRUE(opened) << opened.error().message();
    return opened ? *opened : DatabaseName::catalog();
  }
  void settle() {
    const auto there = store_->info(name("shop"))->bookmark;
    for (Deadline until = SteadyClock::now() + std::chrono::seconds(20);
         SteadyClock::now() < until;) {
      auto status = publications_->status(name("shop"));
      if (status && status->source == there && status->stale == 0) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    FAIL() << "the instances do not get there";
  }
  std::vector<std::string> rows(const DatabaseName& database, const std::string& sql) {
    auto request = std::make_unique<database::testing::TextRequest>(std::vector{sql}, false);
    auto future = request->future();
    store_->submit(database, std::move(request));
    auto answers = future.get();
    if (answers.statements.empty()) return {"nothing"};
    EXPECT_EQ(answers.statements[0].code, 0) << answers.statements[0].message;
    return answers.statements[0].rows;
  }
  std::vector<std::string> shop(const std::string& sql) { return rows(name("shop"), sql); }

  std::unique_ptr<Publications> publications_;
};

TEST_F(PublicationsTest, AnInstanceIsWhatWasPublishedAndFollows) {
  sql(
      {"CREATE TABLE orders(id INTEGER PRIMARY KEY, tenant_id INTEGER, customer TEXT COLLATE "
       "NOCASE, secret TEXT, total REAL)",
       "INSERT INTO orders VALUES(1, 7, 'a', 's1', 1.5), (2, 8, 'b', 's2', 2), (3, 7, 'c', 's3', "
       "3)"});
  auto made = publish(
      "CREATE PUBLICATION shop(tenant INTEGER) AS TABLE orders(id, upper(customer) AS customer, "
      "total) WHERE tenant_id = :tenant, INDEX orders(customer)");
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ(made->stored.version, 1u);
  const DatabaseName seven = open_instance("shop@v1", {{"tenant", "7"}});
  EXPECT_EQ(rows(seven, "SELECT id, customer, total FROM orders"),
            (std::vector<std::string>{"1|A|1.5", "3|C|3.0"}));
  EXPECT_EQ(rows(seven, "SELECT publication, version, parameters FROM _offprint"),
            std::vector<std::string>{"shop|1|tenant=7"});
  const DatabaseName eight = open_instance("shop", {{"tenant", "8"}});
  EXPECT_NE(seven, eight);
  EXPECT_EQ(open_instance("shop", {{"tenant", "7"}}), seven);
  const TxId before = store_->position(seven)->txid;
  // Nothing of it is published: nothing is written.
  sql({"UPDATE orders SET secret='x'"});
  settle();
  EXPECT_EQ(store_->position(seven)->txid, before);
  // A row moves from one to the other.
  sql({"UPDATE orders SET tenant_id=8, total=9 WHERE id=1", "DELETE FROM orders WHERE id=2",
       "INSERT INTO orders VALUES(4, 7, 'd', 's', 4)"});
  settle();
  EXPECT_EQ(rows(seven, "SELECT id FROM orders"), (std::vector<std::string>{"3", "4"}));
  EXPECT_EQ(rows(eight, "SELECT id, total FROM orders"), (std::vector<std::string>{"1|9.0"}));
  EXPECT_EQ(rows(eight, "SELECT source FROM _offprint"),
            std::vector<std::string>{store_->info(name("shop"))->bookmark.text()});
  // After a start it goes on in the same place.
  const Bookmark then = store_->info(eight)->bookmark;
  publications_.reset();
  open();
  serve();
  sql({"INSERT INTO orders VALUES(5, 8, 'e', 's', 5)"});
  EXPECT_EQ(open_instance("shop", {{"tenant", "8"}}), eight);
  EXPECT_EQ(store_->info(eight)->bookmark.lineage, then.lineage);
  EXPECT_EQ(rows(eight, "SELECT id FROM orders"), (std::vector<std::string>{"1", "5"}));
  EXPECT_EQ(store_->position(eight)->txid.value, then.txid.value + 1);
  ASSERT_TRUE(publications_->drop(name("shop"), {"shop", {}}));
  EXPECT_FALSE(store_->info(eight));
  EXPECT_FALSE(publications_->open(name("shop"), {"shop", {}}, {{"tenant", "8"}}));
}

TEST_F(PublicationsTest, WhatDoesNotFitIsRefused) {
  sql({"CREATE TABLE keyed(id INTEGER PRIMARY KEY, a, b)", "CREATE TABLE bare(a)",
       "CREATE TABLE words(w TEXT PRIMARY KEY COLLATE NOCASE) WITHOUT ROWID",
       "CREATE VIEW v AS SELECT 1"});
  auto expect_refused = [&](const std::string& items, const std::string& why) {
    EXPECT_THAT(refusal("CREATE PUBLICATION p(x INTEGER) AS " + items), HasSubstr(why)) << items;
  };
  expect_refused("TABLE none(*)", "no such table");
  expect_refused("TABLE v(*)", "publish a VIEW");
  expect_refused("TABLE bare(*)", "no PRIMARY KEY");
  expect_refused("TABLE keyed(a)", "'id' of its primary key is not published");
  expect_refused("TABLE keyed(id+0 AS id)", "primary key is not published");
  expect_refused("TABLE keyed(id, c)", "no such column");
  expect_refused("TABLE keyed(id, a AS id)", "there twice");
  expect_refused("TABLE keyed(*) WHERE a > random()", "random()");
  expect_refused("TABLE keyed(*) WHERE a > date('now')", "depends on the moment");
  expect_refused("TABLE keyed(*) WHERE a > CURRENT_TIMESTAMP", "depends on the moment");
  expect_refused("TABLE keyed(*) WHERE a = :y", "no parameter");
  expect_refused("TABLE keyed(*) WHERE id IN (SELECT w FROM words)", "add REFRESH FULL");
  expect_refused("TABLE keyed(*), TABLE keyed(*)", "published twice");
  expect_refused("TABLE keyed(*) AS _offprint", "cannot be the name");
  expect_refused("VIEW d(n) KEY(n) AS SELECT count(*) FROM keyed", "add REFRESH FULL");
  expect_refused("VIEW d(n) KEY(m) AS SELECT count(*) FROM keyed REFRESH FULL",
                 "none of its columns");
  expect_refused("VIEW d(n, m) KEY(m) AS SELECT count(*) FROM keyed REFRESH FULL", "2 names for 1");
  expect_refused("TABLE keyed(*), INDEX keyed(nowhere)", "no such column");
  expect_refused("TABLE keyed", "line 1: ( is expected");
  expect_refused("TABLE keyed(*) WHERE", "a condition is expected");
  EXPECT_THAT(refusal("CREATE PUBLICATION P AS TABLE keyed(*)"), HasSubstr("publication's name"));
  EXPECT_THAT(refusal("CREATE PUBLICATION p(x) AS TABLE keyed(*)"), HasSubstr("parameter's type"));
  EXPECT_EQ(refusal("CREATE PUBLICATION p AS TABLE keyed(*), TABLE words(*) WHERE w > 'a'"),
            "none");
  EXPECT_THAT(refusal("CREATE PUBLICATION p AS TABLE keyed(*), TABLE words(*) WHERE w > 'a'"),
              HasSubstr("says just that"));
  EXPECT_EQ(refusal("CREATE PUBLICATION p AS TABLE keyed(*)"), "none");
  EXPECT_EQ(publications_->list(name("shop"))->size(), 2u);
}

// What was published once and is not any more is nowhere in the file.
TEST_F(PublicationsTest, NothingElseIsInTheFile) {
  sql({"CREATE TABLE t(id INTEGER PRIMARY KEY, tenant, v TEXT, hidden TEXT)"});
  ASSERT_TRUE(
      publish("CREATE PUBLICATION p(tenant TEXT) AS TABLE t(id, v) WHERE tenant = :tenant"));
  const DatabaseName mine = open_instance("p", {{"tenant", "mine"}});
  for (int i = 0; i < 300; ++i) {
    sql({fmt::format("INSERT INTO t VALUES({0}, 'mine', 'shown-{0}-MARK-' || hex(zeroblob({1})), "
                     "'SECRET')",
                     i, i * 20 % 9000),
         fmt::format("INSERT INTO t VALUES({}, 'other', 'OTHERS' || hex(zeroblob(100)), 'SECRET')",
                     1000 + i)});
  }
  sql({"UPDATE t SET tenant='other' WHERE id BETWEEN 20 AND 280"});
  settle();
  auto snapshot = store_->snapshot(mine);
  ASSERT_TRUE(snapshot);
  std::string content;
  for (PageNo page = 1; page <= (*snapshot)->page_count(); ++page)
    content += as_text((*snapshot)->page(page).value());
  EXPECT_NE(content.find("shown-7-MARK"), std::string::npos);
  EXPECT_EQ(content.find("shown-25-MARK"), std::string::npos);
  EXPECT_EQ(content.find("SECRET"), std::string::npos);
  EXPECT_EQ(content.find("OTHERS"), std::string::npos);
  EXPECT_EQ(content.find("other"), std::string::npos);
  EXPECT_EQ(content.find("hidden"), std::string::npos);
}

class PublicationOracleTest : public PublicationsTest, public ::testing::WithParamInterface<int> {
 protected:
  struct Watched {
    std::string publication;
    Given given;
    // What stands in the instance and what it is by the definition.
    std::vector<std::pair<std::string, std::string>> same;
  };
  int pick(int below) { return static_cast<int>(random_() % static_cast<unsigned>(below)); }
  std::string value() {
    switch (pick(6)) {
      case 0:
        return "NULL";
      case 1:
        return fmt::format("{}", pick(50));
      case 2:
        return fmt::format("{}.5", pick(50));
      case 3:
        return fmt::format("'{}'", pick(50));
      case 4:
        return fmt::format("randomblob({})", pick(pick(20) == 0 ? 20000 : 40));
      default:
        return fmt::format("'Text {}'", pick(1000));
    }
  }
  std::string statement();
  void check(const Watched& watched, int step);

  std::mt19937 random_{static_cast<unsigned>(GetParam())};
};

std::string PublicationOracleTest::statement() {
  const int id = pick(300);
  switch (pick(18)) {
    case 0:
    case 1:
    case 2:
      return fmt::format(
          "INSERT OR REPLACE INTO orders(id, tenant, customer, secret, total) VALUES({}, {}, {}, "
          "{}, {})",
          id, pick(4), value(), value(), pick(100));
    case 3:
      return fmt::format("UPDATE orders SET tenant={} WHERE id BETWEEN {} AND {}", pick(5), id,
                         id + pick(20));
    case 4:
      return fmt::format("UPDATE orders SET secret={} WHERE id%7={}", value(), pick(7));
    case 5:
      return fmt::format("DELETE FROM orders WHERE id BETWEEN {} AND {}", id, id + pick(40));
    case 6:
    case 7:
      return fmt::format(
          "INSERT INTO items VALUES('i{}', {}, {}) ON CONFLICT DO UPDATE SET qty=qty+1", pick(200),
          id, pick(9));
    case 8:
      return fmt::format("DELETE FROM items WHERE qty={}", pick(9));
    case 9:
      return fmt::format("UPDATE OR IGNORE items SET sku=upper(sku) WHERE qty={}", pick(9));
    case 10:
      return fmt::format("INSERT OR REPLACE INTO pairs VALUES({}, {}, {})", value(), value(),
                         value());
    case 11:
      return fmt::format("DELETE FROM pairs WHERE rowid%5={}", pick(5));
    case 12:
      return fmt::format("UPDATE OR IGNORE pairs SET a={} WHERE rowid%9={}", value(), pick(9));
    case 13:
      return pick(20) == 0 ? "DELETE FROM orders" : "UPDATE orders SET id=id+1000 WHERE id=5";
    case 14:
      return fmt::format(
          "SAVEPOINT s; UPDATE orders SET customer='phantom'; DELETE FROM items; ROLLBACK TO s; "
          "RELEASE s; INSERT OR REPLACE INTO orders VALUES({}, 1, 'x', 'y', 2)",
          id);
    case 15:
      return "UPDATE orders SET customer=customer";
    case 16:
      return fmt::format("INSERT INTO unpublished VALUES({})", value());
    default:
      return fmt::format(
          "INSERT OR REPLACE INTO orders WITH RECURSIVE c(x) AS (SELECT {0} UNION ALL SELECT x+1 "
          "FROM c WHERE x < {1}) SELECT x, x%4, 'c'||x, randomblob(x%50), x%11 FROM c",
          id, id + pick(60));
  }
}

void PublicationOracleTest::check(const Watched& watched, int step) {
  const DatabaseName instance = open_instance(watched.publication, watched.given);
  for (const auto& [mine, truth] : watched.same)
    ASSERT_EQ(rows(instance, mine), shop(truth)) << "step " << step << ": " << mine;
  ASSERT_EQ(rows(instance, "PRAGMA integrity_check"), std::vector<std::string>{"ok"});
}

TEST_P(PublicationOracleTest, InstancesAreWhatTheirDefinitionsSay) {
  sql(
      {"CREATE TABLE orders(id INTEGER PRIMARY KEY, tenant, customer TEXT COLLATE NOCASE, secret, "
       "total INTEGER)",
       "CREATE TABLE items(sku TEXT PRIMARY KEY, order_id INTEGER, qty) WITHOUT ROWID",
       "CREATE TABLE pairs(a, b COLLATE NOCASE, c, PRIMARY KEY(a, b))",
       "CREATE TABLE unpublished(x)", "CREATE INDEX items_order ON items(order_id)",
       "CREATE TRIGGER gone AFTER DELETE ON orders BEGIN DELETE FROM items WHERE "
       "order_id=old.id; END"});
  ASSERT_EQ(
      refusal(
          "CREATE PUBLICATION mine(tenant INTEGER) AS "
          "TABLE orders(id, customer, total*2 AS twice) WHERE tenant = :tenant AND total > 3,"
          "TABLE items(*) WHERE order_id IN (SELECT id FROM orders WHERE tenant=:tenant) REFRESH "
          "FULL,"
          "VIEW sums(customer, n, total) KEY(customer) AS SELECT coalesce(customer, '-'), "
          "count(*), sum(total) FROM orders WHERE tenant=:tenant GROUP BY 1 REFRESH FULL,"
          "INDEX orders(customer, twice)"),
      "none");
  ASSERT_EQ(
      refusal("CREATE PUBLICATION all-of-it AS TABLE pairs(*), TABLE items(sku, qty) WHERE qty "
              "> 2 OR qty IS NULL, TABLE orders(id, tenant)"),
      "none");
  std::vector<Watched> watched;
  for (const char* tenant : {"0", "1", "2", "3"}) {
    const std::string is_mine = fmt::format("tenant={}", tenant);
    watched.push_back(
        {"mine",
         {{"tenant", tenant}},
         {{"SELECT id, customer, typeof(twice), twice FROM orders ORDER BY id",
           "SELECT id, customer, typeof(total*2), total*2 FROM orders WHERE total > 3 AND " +
               is_mine + " ORDER BY id"},
          {"SELECT sku, order_id, quote(qty) FROM items ORDER BY sku",
           "SELECT sku, order_id, quote(qty) FROM items WHERE order_id IN (SELECT id FROM orders "
           "WHERE " +
               is_mine + ") ORDER BY sku"},
          {"SELECT n, total FROM sums ORDER BY quote(customer)",
           "SELECT count(*), sum(total) FROM orders WHERE " + is_mine +
               " GROUP BY coalesce(customer, '-') ORDER BY quote(coalesce(customer, '-'))"}}});
  }
  watched.push_back(
      {"all-of-it",
       {},
       {{"SELECT quote(a), quote(b), quote(c) FROM pairs ORDER BY 1, 2, 3",
         "SELECT quote(a), quote(b), quote(c) FROM pairs ORDER BY 1, 2, 3"},
        {"SELECT sku, quote(qty) FROM items ORDER BY sku",
         "SELECT sku, quote(qty) FROM items WHERE qty > 2 OR qty IS NULL ORDER BY sku"},
        {"SELECT id, quote(tenant) FROM orders ORDER BY id",
         "SELECT id, quote(tenant) FROM orders ORDER BY id"}}});
  open_instance("all-of-it");
  for (int step = 0; step < 150; ++step) {
    std::vector<std::string> statements = {"BEGIN"};
    for (int i = pick(4); i >= 0; --i) {
      std::string text = statement();
      for (std::size_t end; (end = text.find("; ")) != std::string::npos; text.erase(0, end + 2))
        statements.push_back(text.substr(0, end));
      statements.push_back(text);
    }
    statements.emplace_back(pick(12) == 0 ? "ROLLBACK" : "COMMIT");
    if (step % 40 == 20) statements = {"ALTER TABLE orders ADD COLUMN more" + std::to_string(step)};
    if (step == 75) statements = {"VACUUM"};
    if (step % 40 == 30)
      statements = {fmt::format("ALTER TABLE orders DROP COLUMN more{}", step - 10)};
    run("shop", statements);
    if (step % 5 == 4 && step > 10) continue;  // several at once
    settle();
    for (const Watched& each : watched) {
      if (step < 10 && pick(2) == 0) continue;  // some begin later
      ASSERT_NO_FATAL_FAILURE(check(each, step));
    }
  }
  auto status = publications_->status(name("shop"));
  EXPECT_GT(status->rows, 200u);
  EXPECT_LT(status->refreshes, 30u) << "most steps are told from the pages";
}

INSTANTIATE_TEST_SUITE_P(Seeds, PublicationOracleTest, ::testing::Range(1, 5));

}  // namespace
}  // namespace offprint::publication
