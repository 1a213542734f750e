// Who reads what is published, and what becomes of it: registered consumers, broken versions,
// instances that go on after a start.
#include "publication/publications_testing.h"

#include <fmt/format.h>

namespace offprint::publication {
namespace {

using database::DatabaseName;
using database::StoredConsumer;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;
using testing::PublicationsTest;

class ReadersTest : public PublicationsTest {
 protected:
  Result<StoredConsumer> enroll(const std::string& version, const std::string& consumer,
                                const std::string& query) {
    return publications_->register_consumer(name("shop"), PublicationName::parse(version).value(),
                                            consumer, {{"report.sql", query}});
  }
  std::string enroll_error(const std::string& version, const std::string& query) {
    auto done = enroll(version, "someone", query);
    return done ? "none" : done.error().message();
  }
  std::string sql_error(const std::string& statement, bool may_break = false) {
    auto request = std::make_unique<database::testing::TextRequest>(
        std::vector<std::string>{statement}, false);
    request->may_break = may_break;
    auto future = request->future();
    store_->submit(name("shop"), std::move(request));
    auto answers = future.get();
    return answers.statements.empty() ? "nothing" : answers.statements[0].message;
  }
  void restart() {
    publications_.reset();
    open();
    serve();
  }
  void make_shop() {
    sql({"CREATE TABLE orders(id INTEGER PRIMARY KEY, tenant INTEGER, total REAL, note TEXT, zone)",
         "CREATE TABLE items(id INTEGER PRIMARY KEY, order_id INTEGER, qty INTEGER)",
         "CREATE INDEX items_order ON items(order_id)"});
    auto made = publish(
        "CREATE PUBLICATION p(t INTEGER) AS TABLE orders(id, total * 2 AS twice, note) WHERE "
        "tenant = :t, TABLE items(*) AS parts WHERE order_id IN (SELECT id FROM orders WHERE "
        "tenant = :t)");
    ASSERT_TRUE(made) << made.error().message();
  }
};

TEST_F(ReadersTest, WhatConsumersReadIsFoundByTheirQueries) {
  make_shop();
  auto reports = enroll("p@v1", "reports",
                        "-- two of them\nSELECT sum(twice) FROM orders WHERE id > ?;\n"
                        "SELECT count(*) FROM parts NATURAL JOIN (SELECT id FROM orders)");
  ASSERT_TRUE(reports) << reports.error().message();
  EXPECT_THAT(reports->reads,
              ElementsAre(Pair("orders", "id"), Pair("orders", "twice"), Pair("parts", "id")));
  ASSERT_TRUE(enroll("p@v1", "notes", "SELECT note, (SELECT source FROM _offprint) FROM orders"));
  EXPECT_THAT(enroll_error("p@v1", "SELECT total FROM orders"),
              HasSubstr("report.sql:1: no such column: total"));
  EXPECT_THAT(enroll_error("p@v1", "SELECT 1;\nSELECT zone FROM orders"),
              HasSubstr("report.sql:2: no such column: zone"));
  EXPECT_THAT(enroll_error("p@v1", "DELETE FROM orders"), HasSubstr("are SELECTs"));
  EXPECT_THAT(enroll_error("p@v1", "ATTACH 'x.db' AS x"), Not(HasSubstr("none")));
  EXPECT_THAT(enroll_error("p@v1", "  "), HasSubstr("there is no statement"));
  EXPECT_THAT(enroll_error("p@v2", "SELECT 1"), HasSubstr("no publication p@v2"));
  // They are there after a start, and a column of the source is known by what is made of it.
  restart();
  auto info = publications_->describe(name("shop"), {"p", 1});
  ASSERT_TRUE(info);
  ASSERT_EQ(info->consumers.size(), 2u);
  EXPECT_EQ(info->consumers[1].name, "reports");
  auto reads = publications_->source_reads(name("shop"), *info);
  ASSERT_TRUE(reads) << reads.error().message();
  EXPECT_THAT((*reads)[1], ElementsAre(Pair("items", ElementsAre("id", "order_id")),
                                       Pair("orders", ElementsAre("id", "tenant", "total"))));
  EXPECT_FALSE(publications_->unregister_consumer(name("shop"), {"p", 1}, "nobody"));
  EXPECT_TRUE(publications_->unregister_consumer(name("shop"), {"p", 1}, "notes"));
  EXPECT_EQ(publications_->consumers(name("shop"), {"p", 1})->size(), 1u);
  ASSERT_TRUE(publications_->drop(name("shop"), {"p", {}}));
  EXPECT_TRUE(store_->consumers(name("shop"))->empty());
}

TEST_F(ReadersTest, ARefusalNamesWhoIsHit) {
  make_shop();
  EXPECT_THAT(sql_error("ALTER TABLE orders DROP COLUMN note"),
              HasSubstr("No consumer is registered with it."));
  ASSERT_TRUE(enroll("p@v1", "notes", "SELECT note FROM orders"));
  ASSERT_TRUE(enroll("p@v1", "totals", "SELECT twice FROM orders"));
  restart();
  const std::string why = sql_error("ALTER TABLE orders DROP COLUMN note");
  EXPECT_THAT(why, HasSubstr("PUBLICATION_BROKEN: p@v1"));
  EXPECT_THAT(why, HasSubstr("Of its registered consumers it hits notes."));
  EXPECT_THAT(sql_error("ALTER TABLE orders DROP COLUMN total"), HasSubstr("it hits totals."));
  EXPECT_THAT(sql_error("DROP TABLE items"), HasSubstr("Registered with it: notes, totals."));
  EXPECT_EQ(sql_error("ALTER TABLE orders DROP COLUMN zone"), "");
}

// What is broken already holds nobody up; the others are guarded as ever.
TEST_F(ReadersTest, ABrokenVersionIsGuardedNoMore) {
  sql({"CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)",
       "CREATE TABLE u(id INTEGER PRIMARY KEY, c)"});
  ASSERT_TRUE(publish("CREATE PUBLICATION p AS TABLE t(id, a)"));
  ASSERT_TRUE(publish("CREATE PUBLICATION q AS TABLE u(id, c)"));
  EXPECT_THAT(sql_error("ALTER TABLE t DROP COLUMN a"), HasSubstr("PUBLICATION_BROKEN: p@v1"));
  EXPECT_EQ(sql_error("ALTER TABLE t DROP COLUMN a", true), "");
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(sql_error(fmt::format("ALTER TABLE t ADD COLUMN n{}", round)), "");
    EXPECT_THAT(sql_error("ALTER TABLE u DROP COLUMN c"), HasSubstr("PUBLICATION_BROKEN: q@v1"));
    auto list = publications_->list(name("shop"));
    ASSERT_TRUE(list);
    EXPECT_THAT((*list)[0].broken, HasSubstr("no such column"));
    EXPECT_EQ((*list)[1].broken, "");
    restart();
  }
  // In a transaction of several statements, too.
  auto answers =
      run("shop", {"BEGIN", "ALTER TABLE t ADD COLUMN m", "CREATE TABLE v(x)", "COMMIT"});
  for (const auto& answer : answers.statements) EXPECT_EQ(answer.message, "");
  answers = run("shop", {"BEGIN", "CREATE TABLE w(x)", "ALTER TABLE u DROP COLUMN c", "COMMIT"});
  EXPECT_THAT(answers.statements.back().message, HasSubstr("PUBLICATION_BROKEN: q@v1"));
  // What it needs is back: it is what it was, and guarded again.
  EXPECT_EQ(sql_error("ALTER TABLE t ADD COLUMN a"), "");
  EXPECT_EQ((*publications_->list(name("shop")))[0].broken, "");
  EXPECT_THAT(sql_error("ALTER TABLE t DROP COLUMN a"), HasSubstr("PUBLICATION_BROKEN: p@v1"));
}

TEST_F(ReadersTest, TheMomentIsFoundHoweverItIsWritten) {
  sql({"CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b)"});
  for (const char* condition :
       {"a > date('no' || 'w')", "a > strftime('%s', 'NO' || lower('W'))",
        "a > datetime(iif(b, 'n' || 'ow', a))", "a > date(char(110, 111, 119))",
        "b IN (SELECT id FROM t WHERE a > time(replace('nxow', 'x', '')))",
        "a > date('sub' || 'sec')", "a > timediff(a, 'no' || 'w')",
        "a > date((SELECT 'no' || 'w'))", "CASE WHEN b THEN a > date('no' || 'w') END"}) {
    EXPECT_THAT(
        refusal(fmt::format("CREATE PUBLICATION p AS TABLE t(*) WHERE {} REFRESH FULL", condition)),
        HasSubstr("depends on the moment"))
        << condition;
  }
  for (const char* condition :
       {"a > date(b, 'start of ' || 'month')", "a > strftime('%Y' || '-now', a)",
        "a > date('2030' || '-01-01', 'subsec')", "a > datetime(a, '+1 day')",
        "a > date(:day, '-7 days')"}) {
    EXPECT_EQ(
        refusal(fmt::format("CREATE PUBLICATION p(day TEXT) AS TABLE t(*) WHERE ({}) AND :day > ''",
                            condition)),
        "none")
        << condition;
  }
  EXPECT_THAT(publications_->open(name("shop"), {"p", {}}, {{"day", "Now"}}).error().message(),
              HasSubstr("PUBLICATION_PARAMETER"));
  EXPECT_TRUE(publications_->open(name("shop"), {"p", {}}, {{"day", "2026-11-01"}}));
}

// Also where no text says so: quoted names, parts that come of rows, of parameters and of views.
TEST_F(ReadersTest, TheMomentIsRefusedWhenItIsAskedFor) {
  sql({"CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)", "INSERT INTO t VALUES(1, 'n')",
       "CREATE VIEW today AS SELECT 1 AS id, date('now') AS day",
       "CREATE VIEW hours AS SELECT id, time(a || 'ow') AS hour FROM t"});
  auto expect_refused = [&](const std::string& text) {
    EXPECT_THAT(refusal("CREATE PUBLICATION p AS " + text), HasSubstr("depends on the moment"))
        << text;
  };
  expect_refused("TABLE t(*) WHERE a > \"date\"('now') REFRESH FULL");
  expect_refused("TABLE t(*) WHERE a > [strftime]('%s')");
  expect_refused(
      "VIEW v(id, d) KEY(id) AS WITH w(x) AS (VALUES('now')) SELECT 1, date(x) FROM w "
      "REFRESH FULL");
  expect_refused("VIEW v(id, d) KEY(id) AS SELECT id, day FROM today REFRESH FULL");
  expect_refused("VIEW v(id, d) KEY(id) AS SELECT 1, date(printf('%s%s', 'no', 'w')) REFRESH FULL");
  const std::pair<const char*, const char*> hidden[] = {
      {"row", "TABLE t(id, date(a || 'ow') AS d) REFRESH FULL"},
      {"by-row", "TABLE t(id, date(a || 'ow') AS d)"},
      {"parameter", "TABLE t(*) WHERE date(:x || 'w') > a REFRESH FULL"},
      {"view", "VIEW v(id, h) KEY(id) AS SELECT id, hour FROM hours REFRESH FULL"},
  };
  for (const auto& [publication, items] : hidden) {
    const bool has_parameter = std::string_view(items).contains(":x");
    const std::string text = fmt::format("CREATE PUBLICATION {}{} AS {}", publication,
                                         has_parameter ? "(x TEXT)" : "", items);
    const std::string why = refusal(text);
    if (why != "none") {
      EXPECT_THAT(why, HasSubstr("depends on the moment")) << text;
      continue;
    }
    auto opened = publications_->open(name("shop"), {publication, {}}, {{"x", "no"}});
    ASSERT_FALSE(opened) << text;
    EXPECT_THAT(opened.error().message(), HasSubstr("PUBLICATION_MOMENT: "));
  }
  // A row that asks comes later: the instance stays what it was, and says so.
  sql({"UPDATE t SET a = '2030-01-01'"});
  ASSERT_EQ(refusal("CREATE PUBLICATION late AS TABLE t(id, date(a) AS d)"), "none");
  const DatabaseName late = open_instance("late");
  ASSERT_EQ(refusal("CREATE PUBLICATION fine AS TABLE t(*)"), "none");
  const DatabaseName fine = open_instance("fine");
  settle();
  const std::uint64_t refreshes = publications_->status(name("shop"))->refreshes;
  sql({"INSERT INTO t VALUES(2, 'NOW')"});
  EXPECT_TRUE(comes_to([](const auto& status) {
    return status.error.find("PUBLICATION_MOMENT") != std::string::npos;
  }));
  EXPECT_EQ(rows(late, "SELECT id, d FROM t"), std::vector<std::string>{"1|2030-01-01"});
  // What is wrong with one is no matter of the others: they are not compared as a whole.
  EXPECT_EQ(rows(fine, "SELECT id FROM t"), (std::vector<std::string>{"1", "2"}));
  EXPECT_EQ(publications_->status(name("shop"))->refreshes, refreshes);
  sql({"DELETE FROM t WHERE id = 2", "INSERT INTO t VALUES(3, '2031-01-01')"});
  settle();
  EXPECT_EQ(rows(late, "SELECT id FROM t"), (std::vector<std::string>{"1", "3"}));
  EXPECT_EQ(shop("SELECT date('now') > '2020', CURRENT_TIME IS NOT NULL"),
            std::vector<std::string>{"1|1"});
}

// Where it stands in the text, is put together, or comes with a row.
TEST_F(ReadersTest, TheZoneOfTheMachineIsRefused) {
  sql({"CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)", "INSERT INTO t VALUES(1, '2030-01-01')"});
  for (const char* each : {"VIEW v(id, d) KEY(id) AS SELECT id, date(a, 'LocalTime') FROM t",
                           "VIEW v(id, d) KEY(id) AS SELECT id, strftime('%H', a, 'utc') FROM t",
                           "VIEW v(id, d) KEY(id) AS SELECT 1, datetime('2026-01-01', 'local' || "
                           "'time') REFRESH FULL"}) {
    EXPECT_THAT(refusal(fmt::format("CREATE PUBLICATION p AS {}", each)), HasSubstr("time zone"))
        << each;
  }
  sql({"CREATE TABLE z(id INTEGER PRIMARY KEY, zone TEXT)",
       "INSERT INTO z VALUES(1, 'localtime')"});
  ASSERT_EQ(refusal("CREATE PUBLICATION zone AS VIEW v(id, d) KEY(id) AS SELECT id, "
                    "datetime('2026-01-01', zone) FROM z"),
            "none");
  const auto in_zone = publications_->open(name("shop"), {"zone", {}}, {});
  ASSERT_FALSE(in_zone);
  EXPECT_THAT(in_zone.error().message(), HasSubstr("PUBLICATION_MOMENT: "));
  EXPECT_THAT(in_zone.error().message(), HasSubstr("time zone"));
  // Nothing of it is left behind (it would be listed, and stay empty).
  EXPECT_TRUE(store_->list("@", "", 100, "").empty());
  EXPECT_EQ(shop("SELECT datetime(0, 'unixepoch', 'localtime') IS NOT NULL"),
            std::vector<std::string>{"1"});
}

// After a start an instance gets what it missed from the log; where that does not tell, it is
// compared as a whole.
TEST_F(ReadersTest, AfterAStartInstancesGoOnFromWhereTheyStood) {
  sql({"CREATE TABLE orders(id INTEGER PRIMARY KEY, tenant INTEGER, total REAL, secret)",
       "CREATE TABLE names(w TEXT PRIMARY KEY, n) WITHOUT ROWID",
       "INSERT INTO orders VALUES(1, 7, 1, 's'), (2, 8, 2, 's')"});
  ASSERT_TRUE(
      publish("CREATE PUBLICATION p(t INTEGER) AS TABLE orders(id, total) WHERE tenant = :t, "
              "TABLE names(*), VIEW sums(tenant, s) KEY(tenant) AS SELECT tenant, "
              "sum(total) FROM orders GROUP BY tenant REFRESH FULL"));
  const DatabaseName seven = open_instance("p", {{"t", "7"}});
  auto content = [&](const DatabaseName& database) {
    return rows(database,
                "SELECT id||':'||total FROM orders UNION ALL SELECT w||n FROM names "
                "UNION ALL SELECT tenant||'='||s FROM sums ORDER BY 1");
  };
  for (int round = 0; round < 6; ++round) {
    settle();
    const TxId before = store_->position(seven)->txid;
    publications_.reset();
    const int at = round * 10 + 10;
    sql({fmt::format("INSERT INTO orders(id, tenant, total, secret) VALUES({}, 7, 1.5, 'x'), ({}, "
                     "8, 2, 'x')",
                     at, at + 1),
         fmt::format("UPDATE orders SET tenant = 15 - tenant WHERE id <= {}", round),
         fmt::format("DELETE FROM orders WHERE id = {}", at - 9),
         fmt::format("INSERT INTO names VALUES('w{}', {})", round, round)});
    if (round == 3) sql({"ALTER TABLE orders ADD COLUMN more"});
    if (round % 2 == 1) open();
    serve();
    ASSERT_EQ(open_instance("p", {{"t", "7"}}), seven);
    // A version without memory of it says what it must be.
    const DatabaseName fresh = open_instance("p", {{"t", "7"}});
    EXPECT_EQ(content(fresh),
              shop("SELECT id||':'||total FROM orders WHERE tenant=7 UNION ALL SELECT w||n FROM "
                   "names UNION ALL SELECT tenant||'='||sum(total) FROM orders GROUP BY tenant "
                   "ORDER BY 1"));
    EXPECT_EQ(store_->position(seven)->txid.value, before.value + 1) << "one transaction";
    EXPECT_TRUE(comes_to([&](const auto& status) {
      return status.resumed == (round == 3 ? 0 : 1);
    })) << round;
  }
  // Nothing was missed: nothing is written.
  const TxId before = store_->position(seven)->txid;
  restart();
  ASSERT_EQ(open_instance("p", {{"t", "7"}}), seven);
  EXPECT_EQ(store_->position(seven)->txid, before);
  EXPECT_TRUE(comes_to([](const auto& status) { return status.resumed == 1; }));
}

// Also when pages were freed meanwhile: those are nowhere in the log.
TEST_F(ReadersTest, AfterAStartWhatWasDeletedIsMissedToo) {
  const std::string many =
      "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 3000) ";
  sql({"CREATE TABLE t(id INTEGER PRIMARY KEY, x)",
       "CREATE TABLE w(k TEXT PRIMARY KEY, x) WITHOUT ROWID",
       many + "INSERT INTO t SELECT i, randomblob(100) FROM c",
       many + "INSERT INTO w SELECT 'k' || i, randomblob(i % 9 * 20) FROM c"});
  ASSERT_EQ(refusal("CREATE PUBLICATION p AS TABLE t(*), TABLE w(*)"), "none");
  const DatabaseName all = open_instance("p");
  for (const char* work : {"DELETE FROM t WHERE id > 100", "DELETE FROM w WHERE k > 'k2'",
                           "DELETE FROM w", "UPDATE t SET x = randomblob(2000)", "DELETE FROM t"}) {
    settle();
    publications_.reset();
    sql({work, "INSERT INTO t VALUES(9000, 'new')", "DELETE FROM t WHERE id = 9000"});
    serve();
    ASSERT_EQ(open_instance("p"), all);
    for (const char* content : {"SELECT id, hex(x) FROM t", "SELECT k, hex(x) FROM w"})
      EXPECT_EQ(rows(all, content), shop(content)) << work;
    EXPECT_TRUE(comes_to([&](const auto& status) { return status.resumed == 1; })) << work;
  }
}

}  // namespace
}  // namespace offprint::publication
