// What SQL may do for somebody who may not do everything.
#include <gmock/gmock.h>

#include "database/rights.h"
#include "database/testing.h"

namespace offprint::database::testing {
namespace {

using ::testing::HasSubstr;

class RightsTest : public StoreTest {
 protected:
  void SetUp() override {
    StoreTest::SetUp();
    create("b");
    for (const char* sql : {
             "CREATE TABLE open(k INTEGER PRIMARY KEY, v TEXT)",
             "INSERT INTO open VALUES(1, 'one'), (2, 'two')",
             "CREATE TABLE secret(k INTEGER PRIMARY KEY, ssn TEXT UNIQUE, note TEXT)",
             "INSERT INTO secret VALUES(1, '11', 'hidden'), (2, '22', 'veiled')",
             "CREATE TABLE log(at INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT)",
             "CREATE TABLE child(id INTEGER PRIMARY KEY, k REFERENCES secret(k) ON DELETE CASCADE)",
             "CREATE VIEW peep AS SELECT note FROM secret",
             "CREATE VIEW fair AS SELECT v FROM open",
             "CREATE TABLE trapped(a)",
             "CREATE TRIGGER leak AFTER INSERT ON trapped BEGIN"
             " INSERT INTO open(v) SELECT note FROM secret; END",
             "CREATE VIRTUAL TABLE docs USING fts5(body)",
             "INSERT INTO docs VALUES('a hidden document')",
             "CREATE VIRTUAL TABLE words USING fts5vocab(docs, row)",
             "CREATE INDEX secret_note ON secret(note)",
             "ANALYZE",
         }) {
      Answers made = run("b", {sql});
      ASSERT_EQ(made.statements.at(0).message, "") << sql;
    }
  }

  Answer with(const SqlRights& rights, const std::string& sql) {
    auto request = std::make_unique<TextRequest>(std::vector<std::string>{sql}, false);
    request->rights = std::make_shared<SqlRights>(rights);
    auto future = request->future();
    store_->submit(name("b"), std::move(request));
    Answers answers = future.get();
    if (!answers.statements.empty()) return answers.statements[0];
    Answer none;
    none.message = answers.outcome.error ? answers.outcome.error->message() : "no answer";
    return none;
  }
  void expect_allowed(const SqlRights& rights, const std::string& sql) {
    EXPECT_EQ(with(rights, sql).message, "") << sql;
  }
  void expect_refused(const SqlRights& rights, const std::string& sql) {
    Answer answer = with(rights, sql);
    EXPECT_TRUE(answer.rows.empty()) << sql << ": " << answer.rows[0];
    EXPECT_TRUE(answer.message.find("TOKEN_FORBIDS") != std::string::npos ||
                answer.message.find("not available") != std::string::npos ||
                answer.message.find("may not be modified") != std::string::npos ||
                answer.message.find("needs schema_update") != std::string::npos)
        << sql << ": '" << answer.message << "'";
  }
  // Everything that must not have changed, as text.
  std::string state() {
    return query("b", "SELECT group_concat(ssn || note) FROM secret") +
           query("b", "SELECT count(*) FROM child") + query("b", "SELECT count(*) FROM docs") +
           query("b", "SELECT group_concat(name || coalesce(sql, '')) FROM sqlite_schema");
  }

  static SqlRights on_tables(std::map<std::string, Verbs, std::less<>> tables, Verbs others = {}) {
    SqlRights rights;
    rights.tables = std::move(tables);
    rights.other_tables = others;
    return rights;
  }
};

// Ways to see rows of `secret`, or of what belongs to the whole database, without a right to it.
constexpr const char* kReads[] = {
    "SELECT * FROM secret",
    "SELECT count(*) FROM secret",
    "SELECT 1 FROM secret",
    "SELECT k FROM open WHERE k IN (SELECT k FROM secret)",
    "SELECT EXISTS(SELECT 1 FROM secret WHERE note = 'hidden')",
    "SELECT (SELECT note FROM secret LIMIT 1)",
    "SELECT note FROM main.secret",
    "SELECT note FROM SECRET",
    "SELECT note FROM \"secret\"",
    "SELECT g.ssn FROM secret JOIN (SELECT '11' AS ssn UNION SELECT '33') g USING(ssn)",
    "SELECT g.ssn FROM secret NATURAL JOIN (SELECT '11' AS ssn UNION SELECT '33') g",
    "SELECT g.ssn, s.rowid FROM (SELECT '11' AS ssn) g NATURAL LEFT JOIN secret s",
    "SELECT g.ssn FROM (SELECT '11' AS ssn) g JOIN secret USING(ssn)",
    "SELECT count(*) FROM open JOIN secret USING(k)",
    "SELECT open.v FROM open NATURAL JOIN secret",
    "WITH c AS (SELECT * FROM secret) SELECT * FROM c",
    "WITH c AS MATERIALIZED (SELECT ssn FROM secret) SELECT g.ssn FROM c JOIN (SELECT '11' AS ssn) "
    "g USING(ssn)",
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c, secret WHERE n < 3) SELECT * "
    "FROM c",
    "SELECT v FROM open UNION ALL SELECT note FROM secret",
    "SELECT v FROM open INTERSECT SELECT note FROM secret",
    "SELECT v, row_number() OVER (ORDER BY (SELECT max(note) FROM secret)) FROM open",
    "SELECT note FROM secret INDEXED BY secret_note WHERE note > ''",
    "SELECT min(ssn) FROM secret",
    "SELECT * FROM peep",
    "SELECT g.note FROM peep NATURAL JOIN (SELECT 'hidden' AS note) g",
    "VALUES((SELECT note FROM secret))",
    "EXPLAIN SELECT * FROM secret",
    "EXPLAIN QUERY PLAN SELECT * FROM secret",
    "SELECT * FROM docs",
    "SELECT g.body FROM docs NATURAL JOIN (SELECT 'a hidden document' AS body) g",
    "SELECT rowid FROM docs WHERE docs MATCH 'hidden'",
    "SELECT * FROM docs_content",
    "SELECT * FROM docs_data",
    "SELECT hex(block) FROM docs_data",
    "SELECT * FROM docs_idx",
    "SELECT * FROM docs_config",
    "SELECT * FROM words",
    "SELECT g.term FROM words NATURAL JOIN (SELECT 'hidden' AS term) g",
    "SELECT * FROM dbstat",
    "SELECT g.name FROM dbstat NATURAL JOIN (SELECT 'secret' AS name) g",
    "SELECT hex(data) FROM sqlite_dbpage",
    "SELECT g.pgno FROM sqlite_dbpage NATURAL JOIN (SELECT 1 AS pgno) g",
    "SELECT sql FROM sqlite_schema",
    "SELECT sql FROM sqlite_master",
    "SELECT g.name FROM sqlite_schema NATURAL JOIN (SELECT 'secret' AS name) g",
    "SELECT * FROM sqlite_temp_schema",
    "SELECT * FROM sqlite_sequence",
    "SELECT g.name FROM sqlite_sequence NATURAL JOIN (SELECT 'log' AS name) g",
    "SELECT * FROM sqlite_stat1",
    "SELECT * FROM sqlite_stat4",
    "SELECT * FROM pragma_table_info('secret')",
    "SELECT * FROM pragma_table_list",
    "SELECT g.name FROM pragma_table_list NATURAL JOIN (SELECT 'secret' AS name) g",
    "SELECT * FROM pragma_index_list('secret')",
    "SELECT * FROM pragma_foreign_key_check",
    "SELECT * FROM pragma_database_list",
    "PRAGMA table_info(secret)",
    "PRAGMA table_xinfo('secret')",
    "PRAGMA table_list",
    "PRAGMA index_list(secret)",
    "PRAGMA index_info(secret_note)",
    "PRAGMA foreign_key_check",
    "PRAGMA integrity_check",
    "PRAGMA quick_check(secret)",
    "PRAGMA stats",
    "PRAGMA database_list",
    "PRAGMA page_count",
    "SELECT rtreecheck('main', 'secret')",
};

TEST_F(RightsTest, WhatIsNotGrantedCannotBeRead) {
  for (const SqlRights& rights :
       {on_tables({{"open", Verb::kDataRead}, {"fair", Verb::kDataRead}}),
        // Granting the others does not grant what is named with less, and what goes with it.
        on_tables(
            {{"open", kSqlVerbs}, {"fair", kSqlVerbs}, {"secret", {}}, {"docs", {}}, {"words", {}}},
            Verb::kDataRead)}) {
    expect_allowed(rights, "SELECT * FROM open");
    expect_allowed(rights, "SELECT v FROM fair");
    expect_allowed(rights, "SELECT count(*) FROM open AS a NATURAL JOIN open AS b");
    expect_allowed(rights, "SELECT value FROM json_each('[1,2]')");
    expect_allowed(rights, "PRAGMA table_info(open)");
    for (const char* sql : kReads) expect_refused(rights, sql);
  }
}

// The same with no right to read at all, whatever else is allowed.
TEST_F(RightsTest, WithoutReadingNothingIsRead) {
  SqlRights rights;
  rights.everywhere = Verb::kDataAdd;
  for (const char* sql : kReads) expect_refused(rights, sql);
  expect_refused(rights, "SELECT * FROM open");
  expect_refused(rights,
                 "INSERT INTO open(v) SELECT ssn FROM secret JOIN (SELECT '11' AS ssn) "
                 "USING(ssn)");
  expect_refused(rights, "INSERT INTO open(v) VALUES('x') RETURNING *");
  expect_allowed(rights, "INSERT INTO open(v) VALUES('x')");
  expect_allowed(rights, "INSERT INTO log(what) VALUES('x')");
  expect_allowed(rights, "SELECT 1");
}

constexpr const char* kWrites[] = {
    "INSERT INTO secret VALUES(3, '33', 'x')",
    "INSERT INTO open SELECT k + 10, note FROM secret",
    "INSERT INTO open(v) SELECT g.ssn FROM secret NATURAL JOIN (SELECT '11' AS ssn) g",
    "INSERT INTO open(v) VALUES((SELECT note FROM secret LIMIT 1))",
    "INSERT INTO open(v) VALUES('x') RETURNING (SELECT note FROM secret LIMIT 1)",
    "INSERT INTO open VALUES(1, 'x') ON CONFLICT DO UPDATE SET v = (SELECT note FROM secret)",
    "INSERT INTO open SELECT 1, 'x' WHERE true ON CONFLICT(k) DO UPDATE SET v = 'y' WHERE EXISTS "
    "(SELECT 1 FROM secret)",
    "UPDATE open SET v = (SELECT note FROM secret WHERE secret.k = open.k)",
    "UPDATE open SET v = 'x' FROM secret WHERE secret.k = open.k",
    "UPDATE open SET v = 'x' FROM secret NATURAL JOIN (SELECT '11' AS ssn) g",
    "UPDATE open SET v = 'x' WHERE EXISTS (SELECT 1 FROM secret)",
    "UPDATE secret SET note = 'x'",
    "DELETE FROM open WHERE k IN (SELECT k FROM secret)",
    "DELETE FROM open RETURNING (SELECT note FROM secret LIMIT 1)",
    "DELETE FROM secret",
    "DELETE FROM secret WHERE k = 1",
    "REPLACE INTO secret VALUES(1, '11', 'x')",
    "INSERT INTO trapped VALUES(1)",   // its trigger reads
    "INSERT INTO child VALUES(1, 1)",  // its key does
    "INSERT INTO docs VALUES('x')",
    "INSERT INTO docs(docs) VALUES('rebuild')",
    "DELETE FROM docs_content",
    "UPDATE docs_data SET block = x''",
    "UPDATE sqlite_sequence SET seq = 100",
    "DELETE FROM sqlite_stat1",
    "INSERT INTO sqlite_dbpage VALUES(1, x'')",
    "UPDATE sqlite_schema SET sql = ''",
    "CREATE TABLE copy AS SELECT * FROM secret",
    "CREATE TABLE copy AS SELECT g.ssn FROM secret NATURAL JOIN (SELECT '11' AS ssn) g",
    "CREATE TABLE copy AS SELECT sql FROM sqlite_schema",
    "CREATE TRIGGER spy AFTER INSERT ON open BEGIN INSERT INTO open(v) SELECT note FROM secret; "
    "END",
    "CREATE TRIGGER spy AFTER UPDATE ON secret BEGIN INSERT INTO open(v) VALUES(new.note); END",
    "CREATE VIRTUAL TABLE stat USING dbstat(main)",
    "CREATE VIRTUAL TABLE page USING sqlite_dbpage",
    "CREATE VIRTUAL TABLE spy USING fts5(note, content=secret)",
    "CREATE VIRTUAL TABLE spy USING fts5vocab(docs, row)",
    "CREATE INDEX i ON secret(note)",
    "DROP TABLE secret",
    "DROP VIEW peep",
    "DROP TRIGGER leak",
    "DROP INDEX secret_note",
    "DROP TABLE docs",
    "ALTER TABLE secret ADD COLUMN x",
    "ALTER TABLE secret RENAME TO free",
    "ALTER TABLE open RENAME TO free",
    "ALTER TABLE open rename /* to what? */ to\"secret2\"",
    "PRAGMA foreign_keys=OFF",
    "ANALYZE",
    "ANALYZE secret",
    "REINDEX",
    "VACUUM",
    "PRAGMA user_version=7",
    "PRAGMA application_id=7",
    "PRAGMA optimize",
    "PRAGMA incremental_vacuum",
    "SELECT * FROM pragma_optimize",
    "SELECT g.x FROM pragma_optimize NATURAL JOIN (SELECT 1 AS x) g",
};

TEST_F(RightsTest, WhatIsNotGrantedCannotBeChanged) {
  std::string before = state();
  SqlRights rights = on_tables({{"open", kSqlVerbs},
                                {"copy", kSqlVerbs},
                                {"trapped", kSqlVerbs},
                                {"child", kSqlVerbs},
                                {"spy", kSqlVerbs}});
  for (const char* sql : kWrites) expect_refused(rights, sql);
  EXPECT_EQ(state(), before);
  EXPECT_EQ(query("b", "SELECT count(*) FROM open"), "2");
  EXPECT_EQ(query("b", "PRAGMA user_version"), "0");
  expect_allowed(rights, "INSERT INTO open(v) VALUES('x') RETURNING k");
  expect_allowed(rights, "UPDATE open SET v = 'y' FROM (SELECT 3 AS k) g WHERE open.k = g.k");
  expect_allowed(rights, "INSERT INTO open VALUES(1, 'z') ON CONFLICT DO UPDATE SET v = 'z'");
  expect_allowed(rights, "REPLACE INTO open VALUES(1, 'w')");
  expect_allowed(rights, "DELETE FROM open WHERE k = 3");
  expect_allowed(rights, "CREATE TABLE copy(a, b UNIQUE)");
  expect_allowed(rights, "CREATE INDEX copy_a ON copy(a)");
  expect_allowed(rights, "ALTER TABLE copy ADD COLUMN c");
  expect_allowed(rights, "ALTER TABLE copy RENAME COLUMN c TO d");
  expect_allowed(rights, "PRAGMA foreign_keys=ON");
  expect_allowed(rights, "INSERT INTO copy SELECT k, v, 1 FROM open");
  expect_allowed(rights, "DROP INDEX copy_a");
  expect_allowed(rights, "DROP TABLE copy");
}

TEST_F(RightsTest, EachVerbIsAskedForWhereItIsNeeded) {
  struct Case {
    const char* sql;
    Verbs needs;
  };
  for (const Case& one : {
           Case{"SELECT * FROM open", Verb::kDataRead},
           Case{"INSERT INTO open(v) VALUES('x')", Verb::kDataAdd},
           Case{"INSERT INTO log(what) VALUES('replace it')", Verb::kDataAdd},
           Case{"INSERT INTO open(v) SELECT replace('a', 'b', 'c')", Verb::kDataAdd},
           Case{"INSERT OR REPLACE INTO open VALUES(1, 'x')", Verb::kDataAdd | Verb::kDataDelete},
           Case{"INSERT INTO open(v) VALUES('x') RETURNING k", Verb::kDataAdd | Verb::kDataRead},
           Case{"UPDATE open SET v = 'x' WHERE k = 1", Verb::kDataUpdate | Verb::kDataRead},
           Case{"DELETE FROM open", Verb::kDataDelete},
           Case{"DELETE FROM open WHERE k = 1", Verb::kDataDelete | Verb::kDataRead},
           Case{"CREATE TABLE made(a)", Verb::kSchemaAdd},
           Case{"CREATE INDEX made_a ON made(a)", Verb::kSchemaAdd},
           Case{"CREATE VIEW made_view AS SELECT a FROM made", Verb::kSchemaAdd},
           Case{"CREATE TRIGGER made_trigger AFTER INSERT ON made BEGIN DELETE FROM made; END",
                Verb::kSchemaAdd},
           Case{"INSERT INTO made VALUES(1)", Verb::kDataAdd | Verb::kDataDelete},
           Case{"ALTER TABLE made ADD COLUMN b", Verb::kSchemaUpdate},
           Case{"ALTER TABLE made RENAME COLUMN b TO c", Verb::kSchemaUpdate},
           Case{"ALTER TABLE made DROP COLUMN c", Verb::kSchemaUpdate},
           Case{"ANALYZE", Verb::kSchemaUpdate},
           Case{"REINDEX", Verb::kSchemaUpdate},
           Case{"PRAGMA user_version=3", Verb::kSchemaUpdate},
           Case{"PRAGMA optimize", Verb::kSchemaUpdate},
           Case{"DROP TRIGGER made_trigger", Verb::kSchemaDelete},
           Case{"DROP VIEW made_view", Verb::kSchemaDelete},
           Case{"DROP INDEX made_a", Verb::kSchemaDelete},
           Case{"DROP TABLE made", Verb::kSchemaDelete},
           Case{"CREATE TABLE made AS SELECT * FROM open", Verb::kSchemaAdd | Verb::kDataRead},
           Case{"DROP TABLE made", Verb::kSchemaDelete},
           Case{"VACUUM", Verb::kSchemaUpdate},
       }) {
    for (std::string_view verb : one.needs.names()) {
      SqlRights rights;
      rights.everywhere = kSqlVerbs.without(*Verbs::parse(verb));
      expect_refused(rights, one.sql);
    }
    SqlRights enough;
    enough.everywhere = one.needs;
    expect_allowed(enough, one.sql);
  }
}

// Where the server keeps its files is for who owns the database, also when others compiled the
// statement.
TEST_F(RightsTest, ReadersAreNotToldOfFiles) {
  SqlRights owner, reader;
  owner.everywhere = Verb::kDataRead | Verb::kSchemaUpdate;
  reader.everywhere = Verb::kDataRead;
  for (const char* sql : {"PRAGMA database_list", "SELECT file FROM pragma_database_list",
                          "SELECT g.x FROM (SELECT 1 AS x) g, pragma_database_list"}) {
    for (int round = 0; round < 4; ++round) {
      EXPECT_NE(query("b", sql), "");
      expect_allowed(owner, sql);
      expect_refused(reader, sql);
    }
  }
}

TEST_F(RightsTest, NothingGrantedAllowsNothing) {
  for (const char* sql : kReads) expect_refused({}, sql);
  for (const char* sql : kWrites) expect_refused({}, sql);
  expect_refused({}, "SELECT * FROM open");
  expect_allowed({}, "SELECT 1 + 1");
  expect_allowed({}, "BEGIN");
}

TEST_F(RightsTest, PreparedStatementsKeepNoRights) {
  SqlRights reader;
  reader.everywhere = Verb::kDataRead;
  SqlRights narrow = on_tables({{"open", Verb::kDataRead}});
  for (int round = 0; round < 4; ++round) {  // from the third time on its text is kept
    EXPECT_EQ(query("b", "SELECT note FROM secret WHERE k = 1"), "hidden");
    EXPECT_EQ(with(reader, "SELECT note FROM secret WHERE k = 1").rows,
              std::vector<std::string>{"hidden"});
    expect_refused(narrow, "SELECT note FROM secret WHERE k = 1");
    expect_refused({}, "SELECT note FROM secret WHERE k = 1");
    EXPECT_EQ(run("b", {"UPDATE secret SET note = 'hidden' WHERE k = 1"}).statements[0].message,
              "");
    expect_refused(reader, "UPDATE secret SET note = 'hidden' WHERE k = 1");
    expect_refused(narrow, "UPDATE secret SET note = 'hidden' WHERE k = 1");
  }
}

// What a kept text does may change with the schema.
TEST_F(RightsTest, AKeptTextIsCheckedAgainWhenTheSchemaChanges) {
  SqlRights adder;
  adder.everywhere = Verb::kDataAdd | Verb::kDataRead;
  for (int round = 0; round < 4; ++round)
    expect_allowed(adder, "INSERT INTO log(what) VALUES('x')");
  run("b", {"CREATE TRIGGER purge AFTER INSERT ON log BEGIN DELETE FROM secret; END"});
  expect_refused(adder, "INSERT INTO log(what) VALUES('x')");
  EXPECT_EQ(query("b", "SELECT count(*) FROM secret"), "2");
}

TEST_F(RightsTest, ScriptsAndTransactionsAreCheckedStatementByStatement) {
  SqlRights narrow = on_tables({{"open", kSqlVerbs}});
  auto request = std::make_unique<TextRequest>(
      std::vector<std::string>{"BEGIN", "INSERT INTO open(v) VALUES('in')",
                               "SELECT note FROM secret", "SELECT count(*) FROM open", "COMMIT"},
      false);
  request->rights = std::make_shared<SqlRights>(narrow);
  auto future = request->future();
  store_->submit(name("b"), std::move(request));
  Answers answers = future.get();
  ASSERT_EQ(answers.statements.size(), 5u);
  EXPECT_THAT(answers.statements[2].message, HasSubstr("data_read on table 'secret'"));
  EXPECT_EQ(answers.statements[3].rows, std::vector<std::string>{"3"});
  EXPECT_EQ(answers.statements[4].message, "");
}

TEST_F(RightsTest, VirtualTablesAreGrantedByTheirName) {
  SqlRights rights = on_tables({{"docs", Verb::kDataRead | Verb::kDataAdd}});
  EXPECT_EQ(with(rights, "SELECT body FROM docs WHERE docs MATCH 'hidden'").rows.size(), 1u);
  expect_allowed(rights, "INSERT INTO docs VALUES('another')");
  expect_refused(rights, "DELETE FROM docs");
  expect_refused(rights, "SELECT * FROM words");
  expect_refused(rights, "SELECT * FROM open");
}

// What is read of a large schema may take longer than a caller's thread may spend.
TEST_F(RightsTest, ALargeSchemaIsCheckedOnAHelper) {
  std::vector<std::string> tables = {"BEGIN"};
  for (int i = 0; i < 600; ++i) tables.push_back(fmt::format("CREATE TABLE t{}(a)", i));
  tables.emplace_back("COMMIT");
  run("b", tables);
  options_.statement_inline_ms = 0;
  open();
  SqlRights narrow = on_tables({{"open", Verb::kDataRead}, {"t599", Verb::kDataRead}});
  for (int round = 0; round < 5; ++round) {
    EXPECT_EQ(with(narrow, "SELECT count(*) FROM open").rows, std::vector<std::string>{"2"});
    expect_allowed(narrow, "SELECT * FROM t599");
    expect_refused(narrow, "SELECT * FROM t598");
  }
}

TEST(Verbs, NamesAreReadBack) {
  for (std::string_view name : (kSqlVerbs | Verb::kAdmin | Verb::kSagaStart).names())
    EXPECT_EQ(Verbs::parse(name)->names(), std::vector<std::string_view>{name});
  EXPECT_FALSE(Verbs::parse("data_Read"));
  EXPECT_FALSE(Verbs::parse(""));
}

}  // namespace
}  // namespace offprint::database::testing
