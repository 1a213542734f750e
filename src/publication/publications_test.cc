// What can be published, and what instances are.
#include "publication/publications_testing.h"

#include <future>
#include <set>

#include <fmt/format.h>

namespace offprint::publication {
namespace {

using database::DatabaseName;
using ::testing::HasSubstr;
using testing::PublicationsTest;

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
  expect_refused("TABLE keyed(*) WHERE a > strftime('%s')", "depends on the moment");
  expect_refused("TABLE keyed(*) WHERE a = ?1", "no parameter");
  expect_refused("TABLE keyed(*) WHERE a > random() AND b <> 'select'", "random()");
  expect_refused("VIEW d(n) KEY(n) AS SELECT pgno FROM sqlite_dbpage REFRESH FULL", "SQLite's own");
  expect_refused("VIEW d(f) KEY(f) AS SELECT file FROM pragma_database_list REFRESH FULL",
                 "no table of the database");
  expect_refused("TABLE keyed(*) WHERE a > CURRENT_TIMESTAMP", "depends on the moment");
  expect_refused("TABLE keyed(*) WHERE a = :y", "no parameter");
  expect_refused("TABLE keyed(*) WHERE id IN (SELECT w FROM words)", "add REFRESH FULL");
  expect_refused("TABLE keyed(*), TABLE keyed(*)", "published twice");
  expect_refused("TABLE keyed(*) AS _offprint", "cannot be the name");
  expect_refused("VIEW d(n) KEY(n) AS SELECT count(*) FROM keyed", "it is one group");
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
  // Also when others were published since; not once it is retired.
  EXPECT_EQ(refusal("CREATE PUBLICATION z AS TABLE keyed(*)"), "none");
  EXPECT_THAT(refusal("CREATE PUBLICATION p AS TABLE keyed(*)"), HasSubstr("p@v2 says just that"));
  EXPECT_TRUE(
      publications_->check(name("shop"), "CREATE PUBLICATION p AS TABLE keyed(*)")->is_there);
  ASSERT_TRUE(publications_->set_state(name("shop"), {"p", 2},
                                       database::StoredPublication::State::kRetired));
  EXPECT_EQ(refusal("CREATE PUBLICATION p AS TABLE keyed(*)"), "none");
}

TEST_F(PublicationsTest, ParametersAreUsedAndNobodyElses) {
  sql({"CREATE TABLE keyed(id INTEGER PRIMARY KEY, a, b)"});
  EXPECT_THAT(refusal("CREATE PUBLICATION p(x INTEGER, y INTEGER) AS TABLE keyed(*) WHERE a = :x"),
              HasSubstr("parameter 'y' is used nowhere"));
  for (const char* taken : {"since", "limit", "table", "version", "resultsFormat"}) {
    EXPECT_THAT(refusal(fmt::format("CREATE PUBLICATION p({0} TEXT) AS TABLE keyed(*) WHERE a = "
                                    ":{0}",
                                    taken)),
                HasSubstr("cannot be the name of a parameter"));
  }
  // One that was stored before these names were taken.
  EXPECT_TRUE(parse_definition("CREATE PUBLICATION p(since TEXT) AS TABLE keyed(*)"));
  ASSERT_EQ(refusal("CREATE PUBLICATION p(x INTEGER) AS TABLE keyed(*) WHERE a = :x"), "none");
  auto twice = publications_->open(name("shop"), {"p", {}}, {{"x", "1"}, {"x", "2"}});
  ASSERT_FALSE(twice);
  EXPECT_THAT(twice.error().message(), HasSubstr("'x' is there twice"));
}

TEST_F(PublicationsTest, OtherTablesComeAndGo) {
  sql({"CREATE TABLE t(id INTEGER PRIMARY KEY, a)",
       "CREATE TABLE u(id INTEGER PRIMARY KEY, owner INTEGER)", "CREATE INDEX u_owner ON u(owner)",
       "INSERT INTO t VALUES(1, 2)", "INSERT INTO u VALUES(1, 1)"});
  ASSERT_EQ(refusal("CREATE PUBLICATION p AS TABLE t(*), TABLE u(*) WHERE owner IN (SELECT id "
                    "FROM t WHERE a > 1)"),
            "none");
  const DatabaseName copy = open_instance("p");
  const TxId before = store_->position(copy)->txid;
  const auto refreshes = publications_->status(name("shop"))->refreshes;
  sql({"CREATE TABLE other(x)", "INSERT INTO other VALUES(1)", "CREATE INDEX other_x ON other(x)",
       "ALTER TABLE other ADD COLUMN y", "DROP TABLE other"});
  settle();
  EXPECT_EQ(publications_->status(name("shop"))->refreshes, refreshes) << "no table is compared";
  sql({"ALTER TABLE t ADD COLUMN b"});
  settle();
  EXPECT_GT(publications_->status(name("shop"))->refreshes, refreshes);
  EXPECT_EQ(store_->position(copy)->txid, before) << "nothing was to be written";
  sql({"INSERT INTO t VALUES(2, 2, 0)", "INSERT INTO u VALUES(2, 2)"});
  settle();
  EXPECT_EQ(rows(copy, "SELECT * FROM u"), (std::vector<std::string>{"1|1", "2|2"}));
  // Without the index it goes on, slowly, and says so.
  sql({"DROP INDEX u_owner", "UPDATE t SET a = 1 WHERE id = 1"});
  settle();
  EXPECT_EQ(rows(copy, "SELECT * FROM u"), (std::vector<std::string>{"2|2"}));
  auto listed = publications_->list(name("shop"));
  ASSERT_TRUE(listed);
  EXPECT_EQ((*listed)[0].broken, "");
  ASSERT_EQ((*listed)[0].read_whole.size(), 1u);
  EXPECT_THAT((*listed)[0].read_whole[0],
              HasSubstr("TABLE u: from a row of t to what depends on it"));
  sql({"CREATE INDEX u_again ON u(owner)"});
  EXPECT_TRUE(publications_->list(name("shop"))->at(0).read_whole.empty());
}

// What a source gives to rows that say nothing is no part of what is published.
TEST_F(PublicationsTest, DefaultsOfTheSourceAreNotPublished) {
  sql(
      {"CREATE TABLE t(id INTEGER PRIMARY KEY, k TEXT DEFAULT (hex(randomblob(4))), r DEFAULT "
       "(random()), made TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, day TEXT DEFAULT (date('now')), "
       "n DEFAULT (changes()))",
       "CREATE INDEX t_k ON t(k)",
       "CREATE TABLE w(k TEXT PRIMARY KEY DEFAULT (hex(randomblob(4))), v) WITHOUT ROWID",
       "INSERT INTO t(id) VALUES(1), (2)", "INSERT INTO w(v) VALUES(1)"});
  ASSERT_EQ(refusal("CREATE PUBLICATION p AS TABLE t(*) WHERE id > 0, TABLE w(*), VIEW v(k, n) "
                    "KEY(k) AS SELECT made, count(*) FROM t GROUP BY made REFRESH FULL, VIEW "
                    "j(id, k, v) KEY(id) AS SELECT t.id, t.k, w.v FROM t LEFT JOIN w ON w.k = t.k"),
            "none");
  const DatabaseName copy = open_instance("p");
  const std::string all = "SELECT id, k, r, made, day, n FROM t ORDER BY id";
  EXPECT_EQ(rows(copy, all), shop(all));
  sql({"INSERT INTO t(id) VALUES(3)", "UPDATE t SET k = 'x', made = 'then' WHERE id = 1",
       "INSERT INTO w(v) VALUES(2)"});
  settle();
  EXPECT_EQ(rows(copy, all), shop(all));
  EXPECT_EQ(rows(copy, "SELECT k, v FROM w ORDER BY k"), shop("SELECT k, v FROM w ORDER BY k"));
  EXPECT_EQ(rows(copy, "SELECT sql LIKE '%default%' FROM sqlite_schema WHERE name = 't'"),
            std::vector<std::string>{"0"});
}

// What could be missed, and what would read all of a table for each row that changed.
TEST_F(PublicationsTest, WhatCannotBeKeptRowByRowIsRefused) {
  sql({"CREATE TABLE keyed(id INTEGER PRIMARY KEY, a, b)", "CREATE INDEX keyed_a ON keyed(a)",
       "CREATE TABLE words(w TEXT PRIMARY KEY COLLATE NOCASE) WITHOUT ROWID",
       "CREATE VIEW v AS SELECT id, a FROM keyed"});
  auto expect_refused = [&](const std::string& select, const std::string& why) {
    const std::string view = "CREATE PUBLICATION p(x INTEGER) AS VIEW d(k, v) KEY(k) AS " + select;
    EXPECT_THAT(refusal(view), HasSubstr(why)) << select;
  };
  expect_refused("SELECT a, max(b) FROM keyed", "it is one group");
  expect_refused("SELECT a, count(*) FROM keyed GROUP BY b", "not what it groups by");
  expect_refused("SELECT b, count(*) FROM keyed GROUP BY b", "no index leads there (SCAN keyed)");
  expect_refused("SELECT id, a FROM keyed UNION SELECT id, b FROM keyed", "UNION in it");
  expect_refused("SELECT id, a FROM keyed LIMIT 5", "LIMIT in it");
  expect_refused("SELECT id, sum(b) OVER () FROM keyed", "OVER in it");
  expect_refused("SELECT id, a FROM keyed WHERE b > (SELECT avg(k.b) FROM keyed k)",
                 "no index leads there");
  expect_refused("SELECT id, a FROM keyed WHERE a NOT IN (SELECT w FROM words)", "write EXISTS");
  expect_refused("SELECT id, a FROM keyed WHERE b OR a IN (SELECT w FROM words)", "write EXISTS");
  expect_refused("SELECT k.id, l.a FROM keyed k LEFT JOIN keyed l ON l.a = k.a AND l.b = :x",
                 "a parameter in FROM");
  expect_refused("SELECT l.id, k.a FROM keyed k LEFT JOIN keyed l ON l.a = k.a",
                 "its KEY must be of the first table");
  expect_refused("SELECT :x, count(*) FROM keyed GROUP BY :x", "a parameter in its KEY");
  expect_refused("SELECT id, a FROM (SELECT * FROM keyed)", "a SELECT in FROM");
  expect_refused("SELECT id, a FROM keyed WHERE a IN (SELECT keyed.a FROM keyed)",
                 "two tables named");
  expect_refused("SELECT k.id, 1 FROM keyed k JOIN v ON v.id = k.id", "it is a view");
}

// Readers of a version get what it said, whatever becomes of the source; who would take something
// of it away is refused.
TEST_F(PublicationsTest, WhatIsPublishedCannotBeTakenAway) {
  sql({"CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b)", "CREATE TABLE free(x)",
       "INSERT INTO t VALUES(1, 'one', 2)"});
  auto made = publish("CREATE PUBLICATION p AS TABLE t(*) WHERE b > 1");
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_THAT(made->stored.definition, HasSubstr("t(\"id\", \"a\", \"b\")"));
  auto why = [&](const std::vector<std::string>& statements) {
    auto answers = run("shop", statements);
    return answers.statements.back().message;
  };
  const auto is_refused = HasSubstr("PUBLICATION_BROKEN: p@v1 ");
  EXPECT_THAT(why({"ALTER TABLE t DROP COLUMN a"}), is_refused);
  EXPECT_THAT(why({"ALTER TABLE t RENAME COLUMN a TO c"}), is_refused);
  EXPECT_THAT(why({"DROP TABLE t"}), is_refused);
  EXPECT_THAT(
      why({"BEGIN", "INSERT INTO t VALUES(2, 'two', 3)", "ALTER TABLE t RENAME TO u", "COMMIT"}),
      is_refused);
  EXPECT_THAT(why({"SAVEPOINT s", "ALTER TABLE t DROP COLUMN b", "RELEASE s"}), is_refused);
  EXPECT_EQ(shop("SELECT * FROM t"), std::vector<std::string>{"1|one|2"});
  // What leaves it as it was may happen, also by way of a table that takes its place.
  EXPECT_EQ(why({"DROP TABLE free"}), "");
  EXPECT_EQ(why({"ALTER TABLE t ADD COLUMN c"}), "");
  EXPECT_EQ(why({"BEGIN", "CREATE TABLE n(id INTEGER PRIMARY KEY, a TEXT, b, d DEFAULT 5)",
                 "INSERT INTO n(id, a, b) SELECT id, a, b FROM t", "DROP TABLE t",
                 "ALTER TABLE n RENAME TO t", "COMMIT"}),
            "");
  const DatabaseName copy = open_instance("p");
  EXPECT_EQ(rows(copy, "SELECT * FROM t"), std::vector<std::string>{"1|one|2"});
  // The check is there after a start, too, and ends with the version.
  publications_.reset();
  open();
  serve();
  EXPECT_THAT(why({"ALTER TABLE t DROP COLUMN a"}), is_refused);
  using State = database::StoredPublication::State;
  ASSERT_TRUE(publications_->set_state(name("shop"), {"p", 1}, State::kDeprecated, 1'000));
  EXPECT_THAT(why({"ALTER TABLE t DROP COLUMN a"}), is_refused);
  ASSERT_TRUE(publications_->set_state(name("shop"), {"p", 1}, State::kRetired));
  EXPECT_EQ(why({"ALTER TABLE t DROP COLUMN a"}), "");
  EXPECT_FALSE(publications_->set_state(name("shop"), {"p", 1}, State::kPublished));
  EXPECT_THAT(publications_->open(name("shop"), {"p", 1}, {}).error().message(),
              HasSubstr("PUBLICATION_RETIRED"));
  EXPECT_FALSE(publications_->open(name("shop"), {"p", {}}, {}));
}

TEST_F(PublicationsTest, DraftsChangeAndHoldNobodyUp) {
  sql({"CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)", "INSERT INTO t VALUES(1, 2, 3)"});
  using State = database::StoredPublication::State;
  auto draft = [&](const std::string& text) {
    return publications_->create(name("shop"), text, State::kDraft);
  };
  ASSERT_TRUE(draft("CREATE PUBLICATION p AS TABLE t(id, a)"));
  EXPECT_FALSE(publications_->open(name("shop"), {"p", {}}, {})) << "nobody gets it unasked";
  EXPECT_EQ(rows(open_instance("p@v1"), "SELECT * FROM t"), std::vector<std::string>{"1|2"});
  sql({"ALTER TABLE t DROP COLUMN a"});
  auto second = draft("CREATE PUBLICATION p AS TABLE t(id, b)");
  ASSERT_TRUE(second) << second.error().message();
  EXPECT_EQ(second->stored.version, 1u);
  EXPECT_EQ(rows(open_instance("p@v1"), "SELECT * FROM t"), std::vector<std::string>{"1|3"});
  EXPECT_FALSE(publications_->set_state(name("shop"), {"p", 1}, State::kDeprecated));
  ASSERT_TRUE(publications_->set_state(name("shop"), {"p", 1}, State::kPublished));
  EXPECT_EQ(rows(open_instance("p"), "SELECT * FROM t"), std::vector<std::string>{"1|3"});
  auto third = publish("CREATE PUBLICATION p AS TABLE t(id)");
  ASSERT_TRUE(third) << third.error().message();
  EXPECT_EQ(third->stored.version, 2u);
}

// Who must may break it: the copy stays what it was, and says why.
TEST_F(PublicationsTest, WhoMustMayBreakIt) {
  sql({"CREATE TABLE t(id INTEGER PRIMARY KEY, a)", "INSERT INTO t VALUES(1, 2)"});
  ASSERT_TRUE(publish("CREATE PUBLICATION p AS TABLE t(*)"));
  const DatabaseName copy = open_instance("p");
  auto request = std::make_unique<database::testing::TextRequest>(
      std::vector<std::string>{"ALTER TABLE t DROP COLUMN a", "DELETE FROM t"}, false);
  request->may_break = true;
  auto future = request->future();
  store_->submit(name("shop"), std::move(request));
  for (const auto& answer : future.get().statements) EXPECT_EQ(answer.message, "");
  settle();
  EXPECT_EQ(rows(copy, "SELECT * FROM t"), std::vector<std::string>{"1|2"});
  EXPECT_TRUE(comes_to([](const auto& status) { return !status.error.empty(); }));
  publications_.reset();
  open();
  serve();
  EXPECT_EQ(open_instance("p"), copy);
  EXPECT_EQ(rows(copy, "SELECT * FROM t"), std::vector<std::string>{"1|2"});
}

// Another database of the name is nobody's source.
TEST_F(PublicationsTest, TheNextDatabaseOfTheNameIsNotTheSource) {
  sql({"CREATE TABLE t(id INTEGER PRIMARY KEY, a)", "INSERT INTO t VALUES(1, 'old')"});
  ASSERT_TRUE(publish("CREATE PUBLICATION p AS TABLE t(*)"));
  const DatabaseName copy = open_instance("p");
  ASSERT_TRUE(store_->drop(name("shop")));
  create("shop");
  sql({"CREATE TABLE t(id INTEGER PRIMARY KEY, a)", "INSERT INTO t VALUES(2, 'never published')"});
  const Deadline until = SteadyClock::now() + std::chrono::seconds(20);
  while (store_->info(copy) && SteadyClock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_FALSE(store_->info(copy));
  EXPECT_FALSE(publications_->open(name("shop"), {"p", {}}, {}));
}

TEST_F(PublicationsTest, ValuesThatLookAlikeAreOthers) {
  sql({"CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b TEXT)",
       "INSERT INTO t VALUES(1, '1&b=2', '3'), (2, '1', '2&b=3')"});
  ASSERT_TRUE(publish("CREATE PUBLICATION p(a TEXT, b TEXT) AS TABLE t(id) WHERE a=:a AND b=:b"));
  const DatabaseName one = open_instance("p", {{"a", "1&b=2"}, {"b", "3"}});
  const DatabaseName other = open_instance("p", {{"a", "1"}, {"b", "2&b=3"}});
  EXPECT_EQ(rows(one, "SELECT id FROM t"), std::vector<std::string>{"1"});
  EXPECT_EQ(rows(other, "SELECT id FROM t"), std::vector<std::string>{"2"});
  // Nor does the end of one end another's whose name begins with it.
  ASSERT_TRUE(publish("CREATE PUBLICATION p-1 AS TABLE t(id)"));
  const DatabaseName longer = open_instance("p-1");
  ASSERT_TRUE(publications_->drop(name("shop"), {"p", {}}));
  EXPECT_EQ(rows(longer, "SELECT id FROM t"), (std::vector<std::string>{"1", "2"}));
}

// Keys that SQLite finds equal though they are written otherwise, that are NULL, or no integers.
TEST_F(PublicationsTest, KeysOfAllKinds) {
  sql({"CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v)", "INSERT INTO t VALUES('A', 1)",
       "CREATE TABLE d(id INTEGER PRIMARY KEY DESC, x)", "INSERT INTO d VALUES('abc', 1), (2, 2)",
       "CREATE TABLE n(a, b, c, PRIMARY KEY(a, b))", "INSERT INTO n VALUES(NULL, 1, 'one')",
       "CREATE TABLE a(id INTEGER PRIMARY KEY, x INTEGER)", "CREATE INDEX ax ON a(x)",
       "INSERT INTO a(x) VALUES(1), (NULL), (2)"});
  ASSERT_EQ(refusal("CREATE PUBLICATION p AS TABLE t(*) REFRESH FULL, TABLE d(*), TABLE n(*), VIEW "
                    "v(x, n) KEY(x) AS SELECT x, count(*) FROM a GROUP BY x, VIEW u(x) KEY(x) AS "
                    "SELECT id FROM a UNION SELECT '07' REFRESH FULL"),
            "none");
  const DatabaseName copy = open_instance("p");
  auto expect = [&](const std::string& select, const std::vector<std::string>& found) {
    EXPECT_EQ(rows(copy, select), found) << select;
  };
  expect("SELECT quote(id) FROM d ORDER BY 1", {"'abc'", "2"});
  expect("SELECT quote(x), n FROM v ORDER BY 1", {"1|1", "2|1", "NULL|1"});
  expect("SELECT quote(x) FROM u ORDER BY 1", {"'07'", "1", "2", "3"});
  sql({"UPDATE t SET k='a'", "INSERT INTO n VALUES(NULL, 1, 'two')", "DELETE FROM n WHERE c='one'",
       "INSERT INTO a(x) VALUES(NULL), ('abc')"});
  settle();
  expect("SELECT k, v FROM t", {"a|1"});
  expect("SELECT c FROM n", {"two"});
  expect("SELECT quote(x), n FROM v ORDER BY 1", {"'abc'|1", "1|1", "2|1", "NULL|2"});
  EXPECT_TRUE(comes_to([](const auto& status) { return status.error.empty(); }));
}

// Keys with NULL whose spellings a collation finds equal name the same rows.
TEST_F(PublicationsTest, LooseKeysThatLookAlikeStandOnce) {
  sql({"CREATE TABLE t(k TEXT COLLATE NOCASE, n, v, PRIMARY KEY(k, n))"});
  ASSERT_EQ(refusal("CREATE PUBLICATION p AS TABLE t(*)"), "none");
  const DatabaseName copy = open_instance("p");
  sql({"INSERT INTO t VALUES('a', NULL, 1), ('A', NULL, 2)"});
  settle();
  EXPECT_EQ(rows(copy, "SELECT k, v FROM t ORDER BY v"), (std::vector<std::string>{"a|1", "A|2"}));
  sql({"UPDATE t SET v = v + 10"});
  settle();
  EXPECT_EQ(rows(copy, "SELECT k, v FROM t ORDER BY v"),
            (std::vector<std::string>{"a|11", "A|12"}));
}

// A definition that never comes to an end holds up neither who asks how things stand nor a stop.
TEST_F(PublicationsTest, AStopEndsWhatNeverEnds) {
  ASSERT_EQ(refusal("CREATE PUBLICATION p AS VIEW v(x) KEY(x) AS WITH RECURSIVE c(x) AS (SELECT 1 "
                    "UNION ALL SELECT x+1 FROM c) SELECT x FROM c WHERE x < 0 REFRESH FULL"),
            "none");
  auto opened = std::async(std::launch::async,
                           [&] { return publications_->open(name("shop"), {"p", {}}, {}); });
  while (!publications_->status(name("shop")))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  (void)publications_->status(name("shop"));
  publications_->stop();
  EXPECT_FALSE(opened.get());
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

// Rows of moving keys, which SQLite moves between pages: no copy of one that went stays, neither in
// the file nor in a transaction of its log.
TEST_F(PublicationsTest, NoCopyOfAMovedRowStays) {
  sql({"CREATE TABLE t(k TEXT PRIMARY KEY, tenant INTEGER, v TEXT) WITHOUT ROWID",
       "CREATE INDEX t_tenant ON t(tenant)"});
  ASSERT_EQ(refusal("CREATE PUBLICATION p AS TABLE t(k, v) WHERE tenant = 7, INDEX t(v)"), "none");
  const DatabaseName copy = open_instance("p");
  TxId checked = store_->position(copy)->txid;
  std::size_t transactions = 0;
  for (int round = 0; round < 40; ++round) {
    sql({fmt::format(
             "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {1}) "
             "INSERT INTO t SELECT printf('%08x', abs(random()) % 4294967296) || "
             "'-KEY-{0}-' || i || '.', 7, printf('%08x', abs(random()) % 4294967296) || "
             "'-MARK-{0}-' || i || '-' || hex(zeroblob(i * 2)) FROM c",
             round, round == 0 ? 400 : 12),
         "UPDATE t SET tenant = 8 WHERE k IN (SELECT k FROM t WHERE tenant = 7 ORDER BY random() "
         "LIMIT 10)"});
    settle();
    std::set<std::string> there;
    for (const std::string& row : shop("SELECT substr(k, 9) FROM t WHERE tenant = 7"))
      there.insert(row);
    auto snapshot = store_->snapshot(copy);
    ASSERT_TRUE(snapshot);
    for (PageNo page = 1; page <= (*snapshot)->page_count(); ++page) {
      const std::string content(as_text((*snapshot)->page(page).value()));
      for (std::size_t at = content.find("-KEY-"); at != std::string::npos;
           at = content.find("-KEY-", at + 1)) {
        const std::string key = content.substr(at, content.find('.', at) + 1 - at);
        ASSERT_TRUE(there.contains(key)) << round << ", page " << page << ": " << key;
      }
    }
    transactions += store_->position(copy)->txid.value - checked.value;
    checked = store_->position(copy)->txid;
  }
  EXPECT_GE(transactions, 40u);
}

}  // namespace
}  // namespace offprint::publication
