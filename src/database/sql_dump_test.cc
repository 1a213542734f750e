// Scripts made of databases: loaded again they make equal ones, with foreign keys on or off.
#include "database/sql_dump.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "database/sql_dump_plan.h"
#include "database/testing.h"
#include "database/text_export.h"

namespace offprint::database {
namespace {

sqlite::Connection memory() {
  sqlite::Connection::Options options;
  options.create = true;
  return sqlite::Connection::open(":memory:", options).value();
}

std::string dump(sqlite::Connection& db, const SqlDumpOptions& options = {},
                 std::size_t piece = 1 << 20) {
  auto made = SqlDump::start(db, options);
  EXPECT_TRUE(made) << made.error().message();
  std::string text;
  for (bool more = true; more;) {
    auto next = (*made)->next(text, piece);
    EXPECT_TRUE(next) << next.error().message();
    more = next && *next;
  }
  return text;
}

void run(sqlite::Connection& db, const std::string& sql) {
  auto done = db.execute(sql.c_str());
  ASSERT_TRUE(done) << done.error().message() << "\n" << sql.substr(0, 3000);
}

std::string text_of(sqlite::Connection& db, const std::string& sql) {
  auto text = db.query_text(sql.c_str());
  return text ? *text : "error: " + text.error().message();
}

// Of a child before its parent, with everything else that a schema can hold.
constexpr const char* kSchema = R"sql(
PRAGMA foreign_keys=OFF;
CREATE TABLE child(id INTEGER PRIMARY KEY, parent REFERENCES parent(k) ON DELETE CASCADE);
CREATE TABLE parent(k TEXT PRIMARY KEY, other REFERENCES child(id)) WITHOUT ROWID;
INSERT INTO child VALUES (7, 'a'); INSERT INTO parent VALUES ('a', 7);
CREATE TABLE "odd ""name"""("a b" TEXT, "select" INT, [c]);
INSERT INTO "odd ""name"""(rowid, "a b", "select", c) VALUES (-5, 'it''s', 9223372036854775807, x'00ff');
INSERT INTO "odd ""name"""(rowid, "a b", "select", c) VALUES (99, 'line
two', -9223372036854775808, 'z' || char(0) || '<0>' || char(0));
CREATE TABLE kinds(r REAL, n NUMERIC, any, "" TEXT);
INSERT INTO kinds VALUES (9e999, -9e999, 3.0, ''), (0.1, 1e300, NULL, 'x'), (-1.5e-300, 5, x'', NULL);
CREATE TABLE made(a INT, twice AS (a * 2), thrice INT AS (a * 3) STORED, b INT);
INSERT INTO made(a, b) VALUES (1, 2);
CREATE TABLE tight(i INTEGER, t TEXT, b BLOB, a ANY) STRICT;
INSERT INTO tight VALUES (1, '1', x'31', '1');
CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, rowid_ TEXT, "rowid" TEXT);
INSERT INTO counted(rowid_) VALUES ('a'), ('b'); DELETE FROM counted WHERE id = 2;
CREATE UNIQUE INDEX by_r ON kinds(r) WHERE r > 0;
CREATE VIEW seen AS SELECT a AS x FROM made -- with a comment
;
CREATE TABLE log(what);
CREATE TRIGGER tell AFTER INSERT ON made BEGIN INSERT INTO log VALUES ('fired; ' || new.a); END;
CREATE TRIGGER onto INSTEAD OF INSERT ON seen BEGIN INSERT INTO made(a) VALUES (new.x); END;
CREATE VIRTUAL TABLE words USING fts5(title, body, prefix='2 3', tokenize='porter ascii');
INSERT INTO words(rowid, title, body) VALUES (5, 'Hello', 'running wild'), (9, 'it''s', NULL);
INSERT INTO words(words, rank) VALUES ('automerge', 2), ('rank', 'bm25(10.0)');
CREATE TABLE texts(id INTEGER PRIMARY KEY, body);
INSERT INTO texts VALUES (1, 'outer words'), (2, 'more');
CREATE VIRTUAL TABLE outside USING fts5(body, content = 'texts', content_rowid='id');
INSERT INTO outside(outside) VALUES ('rebuild');
CREATE TRIGGER texts_in AFTER INSERT ON texts BEGIN
  INSERT INTO outside(rowid, body) VALUES (new.id, new.body); END;
CREATE VIRTUAL TABLE terms USING fts5vocab(words, 'row');
CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, +label);
INSERT INTO boxes VALUES (3, 0.1, 1e10, 'b;x');
CREATE VIRTUAL TABLE bare USING fts5(body, content='');
INSERT INTO bare(rowid, body) VALUES (1, 'contentless text');
PRAGMA user_version=7; PRAGMA application_id=11;
ANALYZE;
)sql";

constexpr const char* kProbes[] = {
    "SELECT group_concat(quote(id) || quote(parent)) FROM child",
    "SELECT group_concat(quote(k) || quote(other)) FROM parent",
    R"(SELECT group_concat(rowid || quote("a b") || length("a b") || hex("a b") || quote("select") || quote(c)) FROM "odd ""name""")",
    "SELECT group_concat(quote(r) || quote(n) || typeof(n) || quote(any) || quote(\"\")) FROM "
    "kinds",
    "SELECT group_concat(a || '|' || twice || '|' || thrice || '|' || b) FROM made",
    "SELECT group_concat(typeof(i) || typeof(t) || typeof(b) || typeof(a)) FROM tight",
    "SELECT group_concat(name || seq) FROM sqlite_sequence",
    "SELECT count(*) FROM log",
    "SELECT group_concat(rowid || title || coalesce(body, '-')) FROM words",
    "SELECT group_concat(rowid) FROM words('run')",
    "SELECT group_concat(rowid) FROM outside('words')",
    "SELECT group_concat(rowid) FROM bare('contentless')",
    "SELECT group_concat(term) FROM terms",
    "SELECT v FROM words_config WHERE k = 'automerge'",
    "SELECT group_concat(id || '|' || x0 || '|' || x1 || label) FROM boxes",
    "SELECT group_concat(tbl || coalesce(idx, '') || stat, ',') FROM (SELECT * FROM sqlite_stat1 "
    "ORDER BY 1, 2)",
    R"(SELECT group_concat(type || name || coalesce(sql, ''), ';') FROM (SELECT * FROM sqlite_schema
       WHERE name <> 'sqlite_stat4' ORDER BY type, name))",
    "PRAGMA user_version",
    "PRAGMA application_id",
    "PRAGMA integrity_check",
};

class SqlDumpTest : public ::testing::TestWithParam<const char*> {};

TEST_P(SqlDumpTest, MakesAnEqualDatabase) {
  auto source = memory();
  run(source, fmt::format("PRAGMA encoding='{}'", GetParam()) + ";" + kSchema);
  std::string script = dump(source);
  EXPECT_EQ(script, dump(source, {}, 1));  // however small the pieces
  auto target = memory();
  run(target, script);
  EXPECT_EQ(text_of(target, "PRAGMA encoding"), GetParam());
  for (const char* probe : kProbes)
    EXPECT_EQ(text_of(target, probe), text_of(source, probe)) << probe;
  EXPECT_EQ(dump(target), script);
}

INSTANTIATE_TEST_SUITE_P(Encodings, SqlDumpTest,
                         ::testing::Values("UTF-8", "UTF-16le", "UTF-16be"));

TEST(SqlDump, LoadsInsideATransactionWithForeignKeysOn) {
  auto source = memory();
  run(source, kSchema);
  SqlDumpOptions options;
  options.transaction = false;
  // What is copied as it is needs writable_schema, which a transaction with a schema has not.
  run(source, "DROP TABLE bare");
  auto target = memory();
  run(target, "PRAGMA foreign_keys=ON; BEGIN;" + dump(source, options) + "COMMIT");
  EXPECT_EQ(text_of(target, "SELECT count(*) FROM child JOIN parent ON k = parent"), "1");
  EXPECT_EQ(text_of(target, "PRAGMA foreign_keys"), "1");
  EXPECT_EQ(text_of(target, "SELECT count(*) FROM log"), "0");
}

TEST(SqlDump, TakesApartWhatIsAskedFor) {
  auto source = memory();
  run(source, kSchema);
  SqlDumpOptions schema;
  schema.data = false;
  SqlDumpOptions data;
  data.schema = false;
  auto target = memory();
  run(target, dump(source, schema));
  EXPECT_EQ(text_of(target, "SELECT count(*) FROM child"), "0");
  EXPECT_EQ(text_of(target, "SELECT count(*) FROM words"), "0");
  run(target, "DROP TRIGGER tell; DROP TRIGGER texts_in;" + dump(source, data));
  EXPECT_EQ(text_of(target, "SELECT count(*) FROM child"), "1");
  EXPECT_EQ(text_of(target, "SELECT rowid FROM words('run')"), "5");
  SqlDumpOptions some;
  some.tables = {"MADE", "counted", "words"};
  auto part = memory();
  run(part, dump(source, some));
  EXPECT_EQ(text_of(part,
                    "SELECT group_concat(name) FROM (SELECT name FROM sqlite_schema WHERE "
                    "name NOT LIKE 'words_%' AND name NOT LIKE 'sqlite_stat%' ORDER BY 1)"),
            "counted,made,sqlite_sequence,tell,words");
  some.tables = {"absent"};
  auto refused = SqlDump::start(source, some);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kNotFound);
}

TEST(SqlDump, RealsComeBackExactly) {
  auto source = memory();
  run(source, "CREATE TABLE t(v)");
  auto insert = source.prepare("INSERT INTO t VALUES (?)").value();
  std::mt19937_64 random(7);  // NOLINT: the same numbers in every run
  run(source, "BEGIN");
  for (int i = 0; i < 50'000; ++i) {
    double value;
    std::uint64_t bits = random();
    std::memcpy(&value, &bits, sizeof value);
    if (!std::isfinite(value)) continue;
    sqlite3_bind_double(insert.handle(), 1, value);
    ASSERT_TRUE(insert.run());
    sqlite3_bind_double(insert.handle(), 1, static_cast<double>(bits % 100'000) / 1000);
    ASSERT_TRUE(insert.run());
  }
  run(source, "COMMIT");
  auto target = memory();
  run(target, dump(source));
  auto a = source.prepare("SELECT v FROM t").value();
  auto b = target.prepare("SELECT v FROM t").value();
  int differing = 0;
  while (*a.step()) {
    ASSERT_TRUE(*b.step());
    differing += a.column_double(0) != b.column_double(0);
  }
  EXPECT_EQ(differing, 0);
}

TEST(SqlDump, LongValuesComeInPieces) {
  auto source = memory();
  run(source,
      "CREATE TABLE t(b, s); INSERT INTO t VALUES (randomblob(3000000), hex(randomblob(1500000)) "
      "|| "
      "char(0) || '''')");
  auto made = SqlDump::start(source, {});
  ASSERT_TRUE(made);
  std::string script;
  for (bool more = true; more;) {
    std::string piece;
    more = (*made)->next(piece, 1000).value();
    EXPECT_LT(piece.size(), 200'000U);
    script += piece;
  }
  auto target = memory();
  run(target, script);
  for (const char* probe : {"SELECT hex(b) FROM t", "SELECT hex(s) FROM t"})
    EXPECT_EQ(text_of(target, probe), text_of(source, probe));
}

TEST(SqlDump, VirtualTablesAreTakenApart) {
  VirtualTable table = parse_virtual_table(
      "CREATE VIRTUAL TABLE \"a \"\"b\" /* x */ USING Fts5(a, 'b, c', content = \"t\"\"x\", "
      "tokenize=\"unicode61 remove_diacritics 2\")");
  EXPECT_EQ(table.module, "fts5");
  EXPECT_EQ(table.arguments.size(), 4U);
  EXPECT_EQ(table.option("CONTENT"), "t\"x");
  EXPECT_FALSE(table.option("locale"));
  for (const char* broken :
       {"", "CREATE", "CREATE VIRTUAL TABLE 'x", "CREATE VIRTUAL TABLE x USING",
        "CREATE VIRTUAL TABLE x USING y(", "CREATE VIRTUAL TABLE x USING y('"})
    (void)parse_virtual_table(broken);
}

class TextExportTest : public testing::StoreTest {};

TEST_F(TextExportTest, ShowsOneStateWhileWritesGoOn) {
  create("a");
  run("a", {"CREATE TABLE t(n)", "INSERT INTO t VALUES (1)"});
  auto text = export_sql(*store_, name("a"), {});
  ASSERT_TRUE(text) << text.error().message();
  run("a", {"INSERT INTO t VALUES (2)"});
  std::string script;
  while ((*text)->next(script, 10).value()) {
  }
  EXPECT_NE(script.find("VALUES(1,1)"), std::string::npos) << script;
  EXPECT_EQ(script.find("VALUES(2,2)"), std::string::npos) << script;
  EXPECT_EQ((*text)->bookmark().txid.value, 1U);
  EXPECT_EQ(export_sql(*store_, name("none"), {}).error().code(), Code::kNotFound);
}

TEST_F(TextExportTest, LetsGoAfterItsTimeLimit) {
  options_.copy_timeout_ms = 50;
  open();
  create("a");
  run("a", {"CREATE TABLE t(n)", "INSERT INTO t VALUES (1), (2)"});
  auto text = export_sql(*store_, name("a"), {});
  ASSERT_TRUE(text);
  std::string script;
  ASSERT_TRUE((*text)->next(script, 1));
  Deadline late = SteadyClock::now() + std::chrono::seconds(20);
  Result<bool> next = true;
  while (next && SteadyClock::now() < late) {
    script.clear();
    next = (*text)->next(script, 0);
    std::this_thread::yield();
  }
  ASSERT_FALSE(next);
  EXPECT_EQ(next.error().code(), Code::kTimeout);
}

TEST_F(TextExportTest, OfADatabaseThatWasNeverWritten) {
  CreateOptions options;
  options.encoding = "UTF-16le";
  create("a", options);
  auto text = export_sql(*store_, name("a"), {});
  ASSERT_TRUE(text) << text.error().message();
  std::string script;
  EXPECT_FALSE((*text)->next(script, 1 << 20).value());
  EXPECT_EQ(script,
            "PRAGMA encoding='UTF-16le';\nPRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n"
            "PRAGMA defer_foreign_keys=ON;\nCOMMIT;\n");
}

}  // namespace
}  // namespace offprint::database
