// What SQL may do on a hosted database, and what it may not.
#include <fmt/format.h>

#include "database/session_testing.h"
#include "ltx/checksum.h"

namespace offprint::database::testing {
namespace {

class SqlPolicyTest : public SessionTest {};

// --- what is refused, and what is kept

constexpr const char* kRefused[] = {
    "PRAGMA case_sensitive_like=ON",
    "PRAGMA recursive_triggers=ON",
    "PRAGMA query_only=ON",
    "PRAGMA ignore_check_constraints=ON",
    "PRAGMA secure_delete=ON",
    "PRAGMA max_page_count=100",
    "PRAGMA legacy_alter_table=ON",
    "PRAGMA cell_size_check=ON",
    "PRAGMA reverse_unordered_selects=ON",
    "PRAGMA automatic_index=OFF",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA writable_schema=ON",
    "PRAGMA hard_heap_limit=1000000",
    "PRAGMA soft_heap_limit=1",
    "PRAGMA cache_spill=OFF",
    "PRAGMA wal_autocheckpoint=1",
    "PRAGMA journal_size_limit=0",
    "PRAGMA checkpoint_fullfsync=ON",
    "PRAGMA threads=4",
    "PRAGMA read_uncommitted=ON",
    "PRAGMA full_column_names=ON",
    "PRAGMA short_column_names=OFF",
    "PRAGMA locking_mode=EXCLUSIVE",
    "PRAGMA synchronous=OFF",
    "PRAGMA journal_mode=DELETE",
    "PRAGMA main.journal_mode=TRUNCATE",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA page_size=512",
    "PRAGMA auto_vacuum=1",
    "PRAGMA encoding='UTF-16le'",
    "PRAGMA temp_store_directory='/tmp'",
    "PRAGMA data_store_directory='/tmp'",
    "PRAGMA schema_version=1",
    "PRAGMA fullfsync=ON",
    "PRAGMA shrink_memory",
    "PRAGMA parser_trace=ON",
    "PRAGMA vdbe_debug=ON",
    "PRAGMA key='x'",
    "ATTACH ':memory:' AS x",
    "ATTACH DATABASE 'data/databases/0000000000000000.db' AS x",
    "DETACH main",
    "VACUUM INTO 'copy.db'",
    "CREATE TEMP TABLE t(a)",
    "CREATE TEMP VIEW t AS SELECT 1",
    "CREATE TEMP TRIGGER tt AFTER INSERT ON t BEGIN SELECT 1; END",
    "CREATE TABLE temp.t(a)",
    "CREATE VIEW temp.v AS SELECT 1",
    "CREATE VIRTUAL TABLE temp.f USING fts5(a)",
    "CREATE TRIGGER temp.tt AFTER INSERT ON t BEGIN SELECT 1; END",
    "CREATE TABLE temp.t AS SELECT 1",
    "SELECT load_extension('x')",
    "SELECT * FROM pragma_locking_mode('EXCLUSIVE')",
    "INSERT INTO sqlite_dbpage(pgno, data) VALUES(1, zeroblob(4096))",
    "UPDATE sqlite_schema SET sql = ''",
    "DELETE FROM sqlite_dbpage",
    "SELECT sql FROM sqlite_stmt",  // statements of others on a shared connection
    "SELECT s.sql FROM sqlite_stmt NATURAL JOIN (SELECT 1 AS sql) s",
    "CREATE VIRTUAL TABLE s USING sqlite_stmt"};

TEST_F(SqlPolicyTest, SettingsOfTheConnectionCannotBeChanged) {
  make({"CREATE TABLE t(a)"});
  for (const char* sql : kRefused) {
    EXPECT_NE(code_of({sql}), SQLITE_OK) << sql;
  }
  // Nothing of it stuck, and what programs set by habit is accepted without effect.
  for (const char* sql : {"PRAGMA busy_timeout=1", "PRAGMA cache_size=1", "PRAGMA temp_store=2",
                          "PRAGMA analysis_limit=1", "PRAGMA mmap_size=1000",
                          "PRAGMA journal_mode=WAL", "PRAGMA foreign_keys=OFF"}) {
    EXPECT_EQ(code_of({sql}), SQLITE_OK) << sql;
  }
  auto state = together(
      {{"PRAGMA synchronous", "PRAGMA journal_mode", "PRAGMA locking_mode", "PRAGMA cache_size",
        "PRAGMA foreign_keys", "PRAGMA page_size", "SELECT 'a' LIKE 'A'",
        "SELECT count(*) FROM sqlite_temp_schema", "PRAGMA read_uncommitted"}});
  std::string text;
  for (const Answer& answer : state[0].statements) text += answer.rows.at(0) + " ";
  EXPECT_EQ(text, "2 wal normal -2000 1 4096 1 0 0 ");
}

TEST_F(SqlPolicyTest, WhatBelongsToTheDatabaseIsKept) {
  make({"CREATE TABLE t(a)", "PRAGMA user_version=7", "PRAGMA application_id=99", "PRAGMA optimize",
        "ANALYZE", "REINDEX", "PRAGMA incremental_vacuum"});
  open();
  EXPECT_EQ(query("b", "PRAGMA user_version"), "7");
  EXPECT_EQ(query("b", "PRAGMA application_id"), "99");
  EXPECT_EQ(query("b", "PRAGMA integrity_check"), "ok");
  EXPECT_EQ(query("b", "SELECT name FROM pragma_table_info('t')"), "a");
}

TEST_F(SqlPolicyTest, AReadingStatementThatWritesDoesSoThroughTheJournal) {
  make({"CREATE TABLE t(a)", "CREATE INDEX i ON t(a)", "INSERT INTO t VALUES(1), (2), (3)"});
  TxId before = store_->position(name("b"))->txid;
  // Analyzes tables that were never analyzed.
  Answers got = run("b", {"SELECT * FROM pragma_optimize(65538)"});
  EXPECT_EQ(got.statements.at(0).message, "");
  EXPECT_EQ(store_->position(name("b"))->txid, before.next());
  EXPECT_EQ(got.outcome.bookmark.txid, before.next());
  EXPECT_EQ(query("b", "SELECT count(*) > 0 FROM sqlite_stat1"), "1");
}

TEST_F(SqlPolicyTest, VacuumRunsAloneAndNotInATransaction) {
  make({"CREATE TABLE t(a)", "INSERT INTO t VALUES(zeroblob(500000))", "DELETE FROM t"});
  auto answers = together({{"VACUUM"},
                           {"BEGIN", "VACUUM", "COMMIT"},
                           {"/* first */ -- of all\n vacuum main;"},
                           {"EXPLAIN VACUUM"}});
  EXPECT_EQ(answers[0].statements[0].code, SQLITE_OK);
  EXPECT_EQ(answers[1].statements[1].message, "cannot VACUUM from within a transaction");
  EXPECT_EQ(answers[1].statements[2].code, SQLITE_OK);
  EXPECT_EQ(answers[2].statements[0].message, "");
  EXPECT_EQ(answers[3].statements[0].code, SQLITE_OK);
  EXPECT_LT(store_->info(name("b"))->page_count, 10u);
  Answers begun = run("b", {"BEGIN", "INSERT INTO t VALUES(1)", "VACUUM"}, true);
  EXPECT_EQ(begun.statements[2].message, "cannot VACUUM from within a transaction");
  run_held(begun.outcome.held, {"COMMIT"});
  EXPECT_EQ(query("b", "SELECT count(*) FROM t"), "1");
}

// --- what SQLite offers

TEST_F(SqlPolicyTest, SchemaFeaturesWork) {
  make({"CREATE TABLE g(a INT, b INT AS (a * 2) STORED, c INT AS (a + 1))",
        "CREATE TABLE w(k TEXT PRIMARY KEY, n INT) STRICT, WITHOUT ROWID",
        "CREATE VIRTUAL TABLE f USING fts5(body)",
        "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, y0, y1)", "CREATE TABLE audit(what)",
        "CREATE TRIGGER tg AFTER UPDATE OF a ON g BEGIN INSERT INTO audit VALUES(old.a || '>' || "
        "new.a); END",
        "CREATE VIEW v AS SELECT a, b FROM g", "CREATE INDEX gi ON g(b) WHERE a > 1",
        "INSERT INTO g(a) VALUES(1), (2)", "UPDATE g SET a = a + 10",
        "INSERT INTO w VALUES('x', 1) ON CONFLICT(k) DO UPDATE SET n = n + 1",
        "INSERT INTO w VALUES('x', 1) ON CONFLICT(k) DO UPDATE SET n = n + 1",
        "INSERT INTO f VALUES('the quick brown fox'), ('lazy dogs')",
        "INSERT INTO r VALUES(1, 0, 10, 0, 10), (2, 20, 30, 20, 30)",
        "ALTER TABLE g ADD COLUMN d DEFAULT 'new'", "ALTER TABLE g RENAME COLUMN d TO e",
        "ALTER TABLE audit RENAME TO journal", "ALTER TABLE g DROP COLUMN c"});
  open();
  EXPECT_EQ(query("b", "SELECT a, b, e FROM g"), "11|22|new\n12|24|new");
  EXPECT_EQ(query("b", "SELECT * FROM journal"), "1>11\n2>12");
  EXPECT_EQ(query("b", "SELECT n FROM w"), "2");
  EXPECT_EQ(query("b", "SELECT body FROM f WHERE f MATCH 'quick'"), "the quick brown fox");
  EXPECT_EQ(query("b", "SELECT id FROM r WHERE x1 < 15"), "1");
  EXPECT_EQ(run("b", {"INSERT INTO w VALUES('y', 'text')"}).statements[0].code,
            SQLITE_CONSTRAINT_DATATYPE);
  EXPECT_EQ(run("b", {"INSERT INTO g(a) VALUES(5) RETURNING a, b"}).statements[0].rows[0], "5|10");
}

TEST_F(SqlPolicyTest, FullTextSearchSharesBatches) {
  make({"CREATE VIRTUAL TABLE f USING fts5(body)"});
  std::vector<Texts> requests;
  for (int i = 0; i < 40; ++i) {
    requests.push_back({fmt::format("INSERT INTO f VALUES('word{} common')", i)});
    if (i % 8 == 3)
      requests.push_back({"BEGIN", "INSERT INTO f VALUES('undone common')", "ROLLBACK"});
    if (i % 8 == 5) requests.push_back({"INSERT INTO f(nothing) VALUES('x')"});
  }
  together(requests);
  EXPECT_EQ(query("b", "SELECT count(*) FROM f WHERE f MATCH 'common'"), "40");
  EXPECT_EQ(query("b", "SELECT count(*) FROM f WHERE f MATCH 'undone'"), "0");
  EXPECT_EQ(run("b", {"INSERT INTO f(f) VALUES('integrity-check')"}).statements[0].message, "");
}

TEST_F(SqlPolicyTest, ASchemaChangeUndoneInOneRequestDoesNotShowInOthers) {
  make({"CREATE TABLE t(a)", "INSERT INTO t VALUES(1)"});
  for (int round = 0; round < 3; ++round) {  // texts that came before are cached statements
    auto answers =
        together({{"SELECT * FROM t"},
                  {"BEGIN", "ALTER TABLE t ADD COLUMN b DEFAULT 5", "SELECT * FROM t", "ROLLBACK"},
                  {"SELECT * FROM t", "INSERT INTO t VALUES(1)", "DELETE FROM t WHERE rowid > 1"}});
    EXPECT_EQ(answers[1].statements[2].rows[0], "1|5");
    EXPECT_EQ(answers[2].statements[0].rows[0], "1");
    EXPECT_EQ(answers[2].statements[1].message, "");
  }
}

TEST_F(SqlPolicyTest, EveryPageSizeAutoVacuumAndEncoding) {
  int number = 0;
  for (std::uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
    for (int auto_vacuum = 0; auto_vacuum < 3; ++auto_vacuum) {
      CreateOptions options;
      options.page_size = page_size;
      options.auto_vacuum = auto_vacuum;
      options.encoding = std::vector<std::string>{"UTF-8", "UTF-16le",
                                                  "UTF-16be"}[static_cast<std::size_t>(number % 3)];
      std::string database = fmt::format("d{}", number++);
      create(database, options);
      run(database, {"CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b)"});
      run(database, {"INSERT INTO t(a, b) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
                     "FROM c WHERE i < 60) SELECT 'ä€' || i, randomblob(i * 40) FROM c"});
      run(database, {"DELETE FROM t WHERE id % 3 = 0", "PRAGMA incremental_vacuum"});
      run(database, {"UPDATE t SET b = randomblob(2000) WHERE id % 5 = 0"});
    }
  }
  open();
  for (int i = 0; i < number; ++i) {
    std::string database = fmt::format("d{}", i);
    DatabaseInfo info = *store_->info(name(database));
    EXPECT_EQ(query(database, "SELECT count(*), min(a) FROM t"), "40|ä€1");
    EXPECT_EQ(query(database, "PRAGMA page_size"), std::to_string(info.options.page_size));
    EXPECT_EQ(query(database, "PRAGMA auto_vacuum"), std::to_string(info.options.auto_vacuum));
    EXPECT_EQ(query(database, "PRAGMA encoding"), info.options.encoding);
    EXPECT_EQ(query(database, "PRAGMA integrity_check"), "ok");
    EXPECT_EQ(info.page_size, info.options.page_size);
    auto snapshot = store_->snapshot(name(database)).value();
    Checksum sum = ltx::kEmptyDatabase;
    for (PageNo page = 1; page <= snapshot->page_count(); ++page)
      sum = ltx::toggle(sum, ltx::page_checksum(page, *snapshot->page(page)));
    EXPECT_EQ(sum, snapshot->position().checksum) << info.options.page_size;
  }
  EXPECT_EQ(number, 24);
}

}  // namespace
}  // namespace offprint::database::testing
