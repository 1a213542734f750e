// Scripts into hosted databases: all of it or nothing, into new ones and into those with content.
#include "database/sql_import.h"

#include <atomic>
#include <fstream>
#include <thread>

#include <gtest/gtest.h>

#include "database/testing.h"
#include "database/text_export.h"

namespace offprint::database {
namespace {

class SqlImportTest : public testing::StoreTest {
 protected:
  Result<ImportResult> import(const std::string& database, const std::string& script,
                              LoadWatcher watcher = {}) {
    std::string path = folder_.path() + "/script.sql";
    std::ofstream(path, std::ios::binary) << script;
    ImportOptions options;
    options.scratch_directory = folder_.path();
    options.watcher = std::move(watcher);
    return import_sql(*store_, name(database), path, options);
  }
  std::string refusal(const std::string& database, const std::string& script) {
    auto done = import(database, script);
    return done ? "done" : done.error().message();
  }
};

TEST_F(SqlImportTest, IntoNewAndEmptyOnes) {
  const char* script =
      "PRAGMA page_size=8192;\nPRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n"
      "CREATE TABLE c(p REFERENCES p(id));\nINSERT INTO c VALUES(1);\n"
      "CREATE TABLE p(id INTEGER PRIMARY KEY);\nCOMMIT;\n";
  auto done = import("a", script);
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_EQ(done->statements, 7U);
  EXPECT_EQ(done->rows, 1U);
  EXPECT_EQ(done->broken_references, 1U);
  EXPECT_EQ(done->bookmark, store_->info(name("a"))->bookmark);
  EXPECT_EQ(query("a", "PRAGMA page_size"), "8192");
  create("b");
  ASSERT_TRUE(import("b", script));
  EXPECT_EQ(query("b", "SELECT count(*) FROM c"), "1");
  EXPECT_EQ(
      refusal("none", "CREATE TABLE t(a);\nINSERT INTO t\nVALUES (1, 2);"),
      "line 2: table t has 1 columns but 2 values were supplied, in: INSERT INTO t VALUES (1, "
      "2);");
  EXPECT_EQ(store_->info(name("none")).error().code(), Code::kNotFound);
  EXPECT_EQ(refusal("none", "-- nothing"), "there is nothing in this script");
}

TEST_F(SqlImportTest, IntoOneWithContentIsOneTransaction) {
  create("a");
  run("a", {"CREATE TABLE p(id INTEGER PRIMARY KEY)", "INSERT INTO p VALUES (1)"});
  TxId before = store_->info(name("a"))->bookmark.txid;
  auto done = import("a",
                     "PRAGMA page_size=512; PRAGMA journal_mode=DELETE; BEGIN;\n"
                     "CREATE TABLE c(p REFERENCES p(id));\n"
                     "INSERT INTO c VALUES (2); -- before its parent\n"
                     "INSERT INTO p VALUES (2), (3);\nCOMMIT;\nINSERT INTO p VALUES (4);");
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_EQ(done->rows, 4U);
  EXPECT_EQ(done->bookmark.txid, before.next());
  EXPECT_EQ(query("a", "SELECT count(*) FROM p"), "4");
  EXPECT_EQ(query("a", "PRAGMA foreign_keys"), "1");
}

TEST_F(SqlImportTest, AFailureLeavesNothing) {
  create("a");
  run("a", {"CREATE TABLE t(id INTEGER PRIMARY KEY REFERENCES t)", "INSERT INTO t VALUES (1)"});
  Bookmark before = store_->info(name("a"))->bookmark;
  EXPECT_EQ(
      refusal("a", "INSERT INTO t VALUES (2);\nCREATE TABLE u(v);\n\nINSERT INTO t\nVALUES (1);"),
      "line 4: UNIQUE constraint failed: t.id, in: INSERT INTO t VALUES (1);");
  EXPECT_EQ(refusal("a", "INSERT INTO t VALUES (2);\nINSERT INT t;"),
            "line 2: near \"INT\": syntax error, in: INSERT INT t;");
  EXPECT_EQ(refusal("a", "INSERT INTO t VALUES (2); SELECT 'never"),
            "line 1: a quoted text of this statement never ends");
  EXPECT_NE(refusal("a", "BEGIN; INSERT INTO t VALUES (2); ROLLBACK;").find("cannot roll back"),
            std::string::npos);
  EXPECT_NE(refusal("a", "INSERT INTO t VALUES (2); VACUUM;").find("VACUUM"), std::string::npos);
  EXPECT_NE(refusal("a", "INSERT INTO t VALUES (2); ATTACH 'x' AS y;").find("line 1"),
            std::string::npos);
  EXPECT_NE(refusal("a", "INSERT INTO t VALUES (2); INSERT OR ROLLBACK INTO t VALUES (1);")
                .find("UNIQUE"),
            std::string::npos);
  run("a", {"CREATE TABLE child(p REFERENCES t(id))"});
  EXPECT_EQ(refusal("a", "INSERT INTO child VALUES (77);"), "FOREIGN KEY constraint failed");
  EXPECT_EQ(query("a", "SELECT count(*) FROM t"), "1");
  EXPECT_EQ(query("a", "SELECT count(*) FROM sqlite_schema"), "2");
  EXPECT_EQ(store_->info(name("a"))->bookmark.txid, before.txid.next());
}

TEST_F(SqlImportTest, OthersReadAndAreRefusedToWriteMeanwhile) {
  create("a");
  create("other");
  run("a", {"CREATE TABLE t(v)", "INSERT INTO t VALUES (0)"});
  std::string script;
  for (int i = 1; i <= 1000; ++i) script += fmt::format("INSERT INTO t VALUES ({});\n", i);
  std::string during, refused, elsewhere;
  Result<> dropped;
  auto watcher = [&](const LoadProgress&) {
    if (!during.empty()) return true;
    during = query("a", "SELECT count(*) FROM t");
    refused = query("a", "INSERT INTO t VALUES (-1)");
    elsewhere = query("other", "CREATE TABLE t(v)");
    dropped = store_->drop(name("a"));
    return true;
  };
  ASSERT_TRUE(import("a", script, watcher));
  EXPECT_EQ(during, "1");
  EXPECT_NE(refused.find("IMPORT_RUNNING"), std::string::npos) << refused;
  EXPECT_EQ(elsewhere, "");
  EXPECT_FALSE(dropped);
  EXPECT_EQ(query("a", "SELECT count(*) FROM t"), "1001");
  EXPECT_EQ(query("a", "INSERT INTO t VALUES (-1)"), "");
}

TEST_F(SqlImportTest, CanBeCancelled) {
  create("a");
  run("a", {"CREATE TABLE t(v)"});
  auto no = [](const LoadProgress&) { return false; };
  for (const char* target : {"a", "new"}) {
    auto done = import(target, "CREATE TABLE x(v);\nINSERT INTO x VALUES (1);", no);
    ASSERT_FALSE(done);
    EXPECT_TRUE(done.error().message().starts_with("JOB_CANCELLED")) << done.error().message();
  }
  EXPECT_EQ(query("a", "SELECT count(*) FROM sqlite_schema"), "1");
  EXPECT_FALSE(store_->info(name("new")));
  // Within one statement that has no end.
  std::atomic<int> looks = 0;
  auto later = [&](const LoadProgress&) { return ++looks < 3; };
  auto endless = import("new",
                        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
                        "SELECT sum(i) FROM n;",
                        later);
  ASSERT_FALSE(endless);
  EXPECT_TRUE(endless.error().message().starts_with("JOB_CANCELLED")) << endless.error().message();
}

TEST_F(SqlImportTest, ADumpComesBack) {
  create("a");
  run("a", {"CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
            "INSERT INTO t(v) VALUES ('a;b'), (x'00'), (1.5)",
            "CREATE VIRTUAL TABLE f USING fts5(body)", "INSERT INTO f VALUES ('hello words')",
            "CREATE VIRTUAL TABLE bare USING fts5(body, content='')",
            "INSERT INTO bare(rowid, body) VALUES (1, 'hello')", "ANALYZE",
            "CREATE TRIGGER tell AFTER INSERT ON t BEGIN DELETE FROM f; END"});
  auto text = export_sql(*store_, name("a"), {});
  ASSERT_TRUE(text);
  std::string script;
  while ((*text)->next(script, 1 << 20).value()) {
  }
  auto done = import("b", script);
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_EQ(query("b", "SELECT group_concat(quote(v)) FROM t"),
            query("a", "SELECT group_concat(quote(v)) FROM t"));
  EXPECT_EQ(query("b", "SELECT rowid FROM f('words')"), "1");
  EXPECT_EQ(query("b", "SELECT rowid FROM bare('hello')"), "1");
  // Into one with content, what can only be copied as it is is refused, and says so.
  create("c");
  run("c", {"CREATE TABLE other(v)"});
  EXPECT_NE(refusal("c", script).find("line "), std::string::npos);
  run("a", {"DROP TABLE bare"});
  text = export_sql(*store_, name("a"), {});
  script.clear();
  while ((*text)->next(script, 1 << 20).value()) {
  }
  done = import("c", script);
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_EQ(query("c", "SELECT rowid FROM f('words')"), "1");
  EXPECT_EQ(query("c", "SELECT seq FROM sqlite_sequence"), "3");
}

}  // namespace
}  // namespace offprint::database
