// The command line, as its users meet it: output, files, exit codes. docs/guides/command-line.md.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include <fmt/format.h>

#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

enum Exit { kDone = 0, kFailed = 1, kUsage = 2, kUnreachable = 3, kRefused = 4, kDropped = 5 };

class CommandTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(server_.start()); }

  void expect(const std::vector<std::string>& arguments, int exit_code, const std::string& out) {
    Finished done = server_.run(arguments);
    EXPECT_EQ(done.exit_code, exit_code) << arguments[0] << ": " << done.err;
    EXPECT_EQ(done.out, out) << done.err;
  }
  // What the command says on standard error.
  std::string refusal(const std::vector<std::string>& arguments, int exit_code) {
    Finished done = server_.run(arguments);
    EXPECT_EQ(done.exit_code, exit_code) << done.out << done.err;
    return done.err;
  }
  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  // A file's content as SQL, written by the system's sqlite3 library.
  std::string dump(const std::string& file) {
    Finished done = run_program({"python3", "-c",
                                 "import sqlite3, sys\n"
                                 "for line in sqlite3.connect(sys.argv[1]).iterdump(): print(line)",
                                 file});
    EXPECT_EQ(done.exit_code, 0) << done.err;
    return done.out;
  }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
};

constexpr const char* kScript = R"sql(-- all kinds of content; it's a comment
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE kinds (a TEXT, b REAL, c BLOB, twice AS (a || a), "odd ""name""" INT);
INSERT INTO kinds (a, b, c) VALUES ('semi;colon', 9e999, x'00ff'), ('two
lines', -0.1, NULL), ('zero' || char(0) || 'byte', 3.0, x'');
CREATE VIRTUAL TABLE words USING fts5(body);
INSERT INTO words VALUES ('hello world');
CREATE TABLE numbered (id INTEGER PRIMARY KEY AUTOINCREMENT, v);
INSERT INTO numbered (v) VALUES (1), (2);
DELETE FROM numbered WHERE v = 2;
CREATE TABLE keyed (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
INSERT INTO keyed VALUES ('a', 1);
CREATE INDEX by_a ON kinds (a);
CREATE VIEW first AS SELECT a FROM kinds;
CREATE TRIGGER on_insert AFTER INSERT ON kinds BEGIN SELECT 1; SELECT 2; END;
PRAGMA user_version=7;
COMMIT;
)sql";

TEST_F(CommandTest, VersionNamesProgramSqliteAndFormats) {
  Finished done = server_.run({"--version"});
  EXPECT_EQ(done.exit_code, kDone);
  EXPECT_THAT(done.out, AllOf(StartsWith("offprint "), HasSubstr("SQLite 3."), HasSubstr("journal"),
                              HasSubstr("LTX")));
}

TEST_F(CommandTest, DatabasesAreCreatedListedAndDropped) {
  expect({"db", "create", "shop/orders", "--page-size", "8192", "--auto-vacuum", "full"}, kDone,
         "created shop/orders: " + server_.database_url("shop/orders") + "/\n");
  EXPECT_THAT(refusal({"db", "create", "shop/orders"}, kFailed), HasSubstr("exists"));
  EXPECT_THAT(refusal({"db", "create", "Orders"}, kUsage), HasSubstr("no database name"));
  expect({"db", "create", "events"}, kDone,
         "created events: " + server_.database_url("events") + "/\n");
  std::string list = server_.run({"db", "list"}).out;
  EXPECT_THAT(list, AllOf(StartsWith("events\t"), HasSubstr("\nshop/orders\t")));
  EXPECT_THAT(server_.run({"db", "info", "shop/orders"}).out, HasSubstr("page_size     8192"));
  std::string json = server_.run({"db", "info", "shop/orders", "--json"}).out;
  EXPECT_EQ(json_field(json, "auto_vacuum"), "1");
  expect({"db", "drop", "shop/orders"}, kDone, "dropped shop/orders\n");
  EXPECT_THAT(refusal({"db", "drop", "shop/orders"}, kFailed), HasSubstr("offprint db list"));
}

TEST_F(CommandTest, AScriptComesBackAsItWas) {
  std::string script = write("in.sql", kScript);
  ASSERT_EQ(server_.run({"db", "import", "a", script}).exit_code, kDone);
  ASSERT_EQ(server_.run({"db", "export", "a", folder_ / "a.db"}).exit_code, kDone);
  ASSERT_EQ(server_.run({"db", "export", "a", folder_ / "a.sql"}).exit_code, kDone);
  ASSERT_EQ(server_.run({"db", "import", "b", folder_ / "a.sql"}).exit_code, kDone);
  ASSERT_EQ(server_.run({"db", "export", "b", folder_ / "b.db"}).exit_code, kDone);
  EXPECT_EQ(dump(folder_ / "a.db"), dump(folder_ / "b.db"));
  StockReader copy(folder_ / "b.db");
  EXPECT_EQ(copy.query("SELECT a, twice, typeof(c), length(c) FROM kinds WHERE b = 9e999"),
            "[[\"semi;colon\",\"semi;colonsemi;colon\",\"blob\",2]]");
  EXPECT_EQ(copy.query("SELECT body FROM words WHERE words MATCH 'world'"), "[[\"hello world\"]]");
  EXPECT_EQ(copy.query("SELECT seq FROM sqlite_sequence"), "[[2]]");
  EXPECT_EQ(copy.query("PRAGMA user_version"), "[[7]]");
  EXPECT_EQ(copy.query("PRAGMA integrity_check"), "[[\"ok\"]]");
  // The system's SQLite reads it, too.
  Finished loaded = run_program({"python3", "-c",
                                 "import sqlite3, sys\n"
                                 "db = sqlite3.connect(':memory:', isolation_level=None)\n"
                                 "db.executescript(open(sys.argv[1]).read())\n"
                                 "print(db.execute('SELECT count(*) FROM kinds').fetchone()[0])",
                                 folder_ / "a.sql"});
  EXPECT_EQ(loaded.out, "3\n") << loaded.err;
  EXPECT_THAT(refusal({"db", "export", "a", folder_ / "a.db"}, kFailed), HasSubstr("--force"));
  EXPECT_EQ(server_.run({"db", "export", "a", folder_ / "a.db", "--force"}).exit_code, kDone);
  EXPECT_THAT(refusal({"db", "import", "a", script}, kFailed),
              HasSubstr("in.sql: line 4: table kinds already exists, in: CREATE TABLE kinds"));
  EXPECT_THAT(refusal({"db", "import", "a", folder_ / "a.db"}, kFailed), HasSubstr("not empty"));
  expect({"db", "import", "a", write("more.sql", "INSERT INTO keyed VALUES ('b', 2), ('c', 3);")},
         kDone, "imported " + (folder_ / "more.sql") + " (1 statements, 2 rows) into a\n");
  Finished json = server_.run(
      {"db", "import", "a", "--json", write("json.sql", "INSERT INTO keyed VALUES ('d', 4);")});
  EXPECT_THAT(json.out, HasSubstr("\"state\":\"done\""));
  EXPECT_THAT(server_.run({"db", "insights", "a"}).out,
              HasSubstr("  INSERT INTO keyed VALUES (?)\n"));
  EXPECT_THAT(server_.run({"db", "usage"}).out, HasSubstr("a\t"));
  Finished usage = server_.run({"db", "usage", "a"});
  EXPECT_EQ(usage.exit_code, kDone) << usage.err;
  EXPECT_EQ(server_.run({"db", "usage", "a", "--month", "2000-01"}).out.find("20"),
            std::string::npos);
  EXPECT_THAT(server_.run({"db", "usage", "--json"}).out, HasSubstr("{\"name\":\"a\","));
  EXPECT_THAT(refusal({"db", "usage", "--month", "x"}, kFailed), HasSubstr("must be a month"));
}

TEST_F(CommandTest, RowsGoInAndOutOfTables) {
  server_.create("a");
  std::string csv = write("in.csv", "id,name\r\n1,\"x,\n\"\"y\"\"\"\r\n2,\r\n");
  EXPECT_THAT(refusal({"db", "import", "a", csv}, kFailed), HasSubstr("--table"));
  EXPECT_THAT(refusal({"db", "import", "a", csv, "--table", "t"}, kFailed), HasSubstr("create=1"));
  expect({"db", "import", "a", csv, "--table", "t", "--create"}, kDone,
         "imported " + csv + " (2 rows) into a\n");
  for (const char* file : {"t.tsv", "t.jsonl", "t.ndjson", "t.csv"}) {
    std::string path = folder_ / file;
    ASSERT_EQ(server_.run({"db", "export", "a", path, "--table", "t"}).exit_code, kDone);
    server_.query("a", "DELETE FROM t");
    expect({"db", "import", "a", path, "--table", "t"}, kDone,
           "imported " + path + " (2 rows) into a\n");
    EXPECT_EQ(server_.query("a", "SELECT * FROM t"), "[[1,\"x,\\n\\\"y\\\"\"],[2,null]]");
  }
  std::string text = folder_ / "rows.txt";
  std::vector<std::string> query = {"db",          "export",      "a",       text,
                                    "--format",    "csv",         "--query", "SELECT id + 1 FROM t",
                                    "--no-header", "--delimiter", ";"};
  EXPECT_EQ(server_.run(query).exit_code, kDone);
  expect({"db", "import", "a", text, "--format", "csv", "--table", "u", "--create", "--no-header"},
         kDone, "imported " + text + " (2 rows) into a\n");
  EXPECT_EQ(server_.query("a", "SELECT c1 FROM u"), "[[2],[3]]");
  EXPECT_THAT(refusal({"db", "export", "a", folder_ / "no.csv"}, kFailed), HasSubstr("--query"));
  EXPECT_THAT(refusal({"db", "export", "a", folder_ / "no.csv", "--table", "none"}, kFailed),
              HasSubstr("there is no table 'none'"));
  EXPECT_THAT(refusal({"db", "import", "a", write("bad.jsonl", "{\"id\":1}\n{\n"), "--table", "t"},
                      kFailed),
              HasSubstr("bad.jsonl: line 2: the row is no JSON"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "no.csv"));
}

// A live file: part of its content stands in its -wal only, and a program holds it.
TEST_F(CommandTest, AnOpenFileIsImportedWhole) {
  std::string file = folder_ / "live.db";
  StockReader writer(file, "mode=rwc");
  EXPECT_EQ(writer.query("PRAGMA journal_mode = WAL"), "[[\"wal\"]]");
  EXPECT_EQ(writer.query("CREATE TABLE t (n)"), "[]");
  EXPECT_EQ(writer.query("INSERT INTO t VALUES (1), (2), (3)"), "[]");
  ASSERT_GT(std::filesystem::file_size(file + "-wal"), 0U);
  Finished done = server_.run({"db", "import", "shop", file});
  EXPECT_EQ(done.exit_code, kDone) << done.err;
  EXPECT_EQ(server_.query("shop", "SELECT sum(n) FROM t"), "[[6]]");
  EXPECT_EQ(writer.query("INSERT INTO t VALUES (4)"), "[]");
}

TEST_F(CommandTest, ABadScriptLeavesNothingAndNamesItsLine) {
  std::string bad =
      write("bad.sql", "CREATE TABLE t (a);\nINSERT INTO t\n VALUES (1),\n (oops);\n");
  EXPECT_THAT(refusal({"db", "import", "bad", bad}, kFailed),
              HasSubstr("bad.sql: line 4: no such column: oops"));
  EXPECT_THAT(refusal({"db", "import", "bad", write("dot.sql", "SELECT 1;\n.mode csv\n")}, kFailed),
              HasSubstr("line 2: a command of the sqlite3 program"));
  EXPECT_THAT(
      refusal({"db", "import", "bad", write("open.sql", "CREATE TABLE t (a);\nSELECT 'x;\n")},
              kFailed),
      HasSubstr("line 2: a quoted text"));
  EXPECT_THAT(
      refusal({"db", "import", "bad", write("attach.sql", "ATTACH 'other.db' AS o;\n")}, kFailed),
      HasSubstr("line 1: not authorized"));
  EXPECT_THAT(refusal({"db", "import", "bad", write("text.db", "CREATE TABLE t (a);\n")}, kFailed),
              HasSubstr("ends with .sql"));
  EXPECT_THAT(refusal({"db", "import", "bad", folder_ / "none.db"}, kFailed),
              HasSubstr("no such file"));
  EXPECT_THAT(server_.run({"db", "list"}).out, ::testing::Not(HasSubstr("bad")));
}

TEST_F(CommandTest, SqlPrintsPlainCsvAndJson) {
  server_.create("s");
  expect({"sql", "s",
          "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b BLOB); INSERT INTO t VALUES "
          "(9007199254740993, 'x, "
          "\"y\"', x'00ff'), (2, '', NULL);"},
         kDone, "");
  expect({"sql", "s", "SELECT * FROM t ORDER BY id"}, kDone,
         "2\t\t\n9007199254740993\tx, \"y\"\tx'00ff'\n");
  expect({"sql", "--csv", "s", "SELECT *, 1.5 AS r FROM t ORDER BY id"}, kDone,
         "id,a,b,r\r\n2,\"\",,1.5\r\n9007199254740993,\"x, \"\"y\"\"\",x'00ff',1.5\r\n");
  expect({"sql", "--json", server_.database_url("s") + "/", "SELECT *, id FROM t ORDER BY id"},
         kDone,
         "{\"id\":2,\"a\":\"\",\"b\":null,\"id:1\":2}\n"
         "{\"id\":9007199254740993,\"a\":\"x, "
         "\\\"y\\\"\",\"b\":{\"base64\":\"AP8\"},\"id:1\":9007199254740993}\n");
}

TEST_F(CommandTest, SqlPrintsATableOnATerminal) {
  server_.create("s");
  server_.query("s", "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)");
  Finished done = run_program(
      {"script", "-qec",
       fmt::format("{} sql --server {} s \"INSERT INTO t VALUES (10, 'tür'), (2, NULL); SELECT id, "
                   "a FROM t; SELECT 1 WHERE 0\"",
                   program(), server_.url()),
       "/dev/null"});
  EXPECT_EQ(done.exit_code, kDone) << done.err;
  std::erase(done.out, '\r');
  EXPECT_THAT(done.out, HasSubstr("2 rows changed\n"
                                  " id | a\n"
                                  "----+------\n"
                                  "  2 | NULL\n"
                                  " 10 | tür\n"
                                  "(2 rows)\n"));
}

TEST_F(CommandTest, SqlReadsAScriptAndStopsAtItsFirstError) {
  server_.create("s");
  Finished done =
      server_.run({"sql", "s"},
                  "CREATE TABLE t (a);\nINSERT INTO t VALUES (1);\nBEGIN;\nINSERT INTO t VALUES "
                  "(2);\nCOMMIT; SELECT count(*) FROM t;\n\nSELEC 1;\nINSERT INTO t VALUES (3);\n");
  EXPECT_EQ(done.exit_code, kFailed);
  EXPECT_EQ(done.out, "2\n");
  EXPECT_THAT(done.err, HasSubstr("line 7: "));
  EXPECT_EQ(server_.query("s", "SELECT count(*) FROM t"), "[[2]]");
  // A transaction that the script leaves open is rolled back.
  EXPECT_EQ(server_.run({"sql", "s"}, "BEGIN; DELETE FROM t;").exit_code, kDone);
  EXPECT_EQ(server_.query("s", "SELECT count(*) FROM t"), "[[2]]");
}

TEST_F(CommandTest, ExitCodesTellFailuresApart) {
  EXPECT_EQ(server_.run({}).exit_code, kUsage);
  EXPECT_EQ(server_.run({"nonsense"}).exit_code, kUsage);
  EXPECT_EQ(server_.run({"db", "list", "--bad-option"}).exit_code, kUsage);
  EXPECT_EQ(server_.run({"db", "list", "--server", "ftp://x"}).exit_code, kUsage);
  EXPECT_EQ(server_.run({"follow", server_.url()}).exit_code, kUsage);
  EXPECT_THAT(refusal({"sql", "none", "SELECT 1"}, kFailed), HasSubstr("offprint db create"));
  EXPECT_THAT(refusal({"db", "list", "--server", "http://127.0.0.1:1"}, kUnreachable),
              HasSubstr("--server"));
  EXPECT_THAT(
      refusal({"follow", "http://127.0.0.1:1/db/x", folder_ / "x.db", "--once"}, kUnreachable),
      HasSubstr("Without --once"));
  EXPECT_THAT(refusal({"follow", "none", folder_ / "x.db", "--once"}, kFailed),
              HasSubstr("offprint db list"));
  EXPECT_THAT(refusal({"sql", "http://user:secret@127.0.0.1/db/x", "SELECT 1"}, kUsage),
              HasSubstr("--token"));
}

TEST_F(CommandTest, FollowOnceCatchesUpAndResumes) {
  server_.create("s", R"(,"page_size":1024)");
  server_.query("s", "CREATE TABLE t (a)");
  std::string replica = folder_ / "s.db";
  for (int i = 1; i <= 3; ++i) {
    server_.query("s", fmt::format("INSERT INTO t VALUES ({})", i));
    Finished done =
        server_.run({"follow", server_.database_url("s"), replica, "--once", "--verify"});
    EXPECT_EQ(done.exit_code, kDone) << done.err;
    EXPECT_THAT(done.out, HasSubstr("equals the primary"));
    EXPECT_EQ(StockReader(replica).query("SELECT max(a) FROM t"), fmt::format("[[{}]]", i));
  }
}

TEST_F(CommandTest, AWriteFromBesideAReplicaIsInItWhenTheCommandReturns) {
  server_.create("orders");
  server_.query("orders", "CREATE TABLE t(n)");
  FollowerProcess follower(folder_, server_.database_url("orders"), folder_ / "orders.db");
  follower.start();
  for (Deadline until = in_seconds(20); SteadyClock::now() < until;) {
    if (std::filesystem::exists(follower.file())) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  StockReader reader(follower.file());
  for (int i = 1; i <= 20; ++i) {
    Finished done = run_program(
        {program(), "sql", "--via", follower.file(), fmt::format("INSERT INTO t VALUES({})", i)});
    ASSERT_EQ(done.exit_code, 0) << done.err;
    EXPECT_EQ(reader.query("SELECT count(*) FROM t"), fmt::format("[[{}]]", i));
  }
  follower.kill();
  Finished late = run_program(
      {program(), "sql", "--via", follower.file(), "--wait-ms", "100", "INSERT INTO t VALUES(0)"});
  EXPECT_EQ(late.exit_code, 1);
  EXPECT_NE(late.err.find("follower"), std::string::npos) << late.err;
  EXPECT_EQ(server_.query("orders", "SELECT count(*) FROM t"), "[[21]]");
  EXPECT_NE(run_program({program(), "sql", "--via", folder_ / "none.db", "SELECT 1"}).exit_code, 0);
}

TEST_F(CommandTest, FollowRefusesAForeignFile) {
  server_.create("s");
  std::string foreign = folder_ / "mine.db";
  EXPECT_EQ(StockReader(foreign, "mode=rwc").query("CREATE TABLE precious (a)"), "[]");
  std::string before = file_text(foreign);
  EXPECT_NE(refusal({"follow", "s", foreign, "--once"}, kRefused), "");
  EXPECT_EQ(file_text(foreign), before);
  std::string text = write("notes.txt", "not a database");
  EXPECT_NE(refusal({"follow", "s", text, "--once"}, kRefused), "");
  EXPECT_EQ(file_text(text), "not a database");
}

TEST_F(CommandTest, VerifyFindsAndMendsACopyThatDiffers) {
  server_.create("s");
  server_.query("s", "CREATE TABLE t (a)");
  server_.query("s", "INSERT INTO t VALUES (1)");
  std::string replica = folder_ / "s.db";
  ASSERT_EQ(server_.run({"follow", "s", replica, "--once"}).exit_code, kDone);
  EXPECT_EQ(StockReader(replica, "mode=rw").query("UPDATE t SET a = 666"), "[]");
  Finished found = server_.run({"follow", "s", replica, "--once", "--verify"});
  EXPECT_EQ(found.exit_code, kFailed) << found.out;
  EXPECT_THAT(found.out + found.err, HasSubstr("mended"));
  EXPECT_EQ(StockReader(replica).query("SELECT a FROM t"), "[[1]]");
  EXPECT_EQ(server_.run({"follow", "s", replica, "--once", "--verify"}).exit_code, kDone);
}

TEST_F(CommandTest, FollowEndsWhenTheDatabaseIsDropped) {
  server_.create("s");
  server_.query("s", "CREATE TABLE t (a)");
  std::string replica = folder_ / "s.db";
  FollowerProcess follower(folder_, server_.database_url("s"), replica);
  follower.start();
  for (Deadline end = in_seconds(60);
       !std::filesystem::exists(replica) && SteadyClock::now() < end;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(server_.run({"db", "drop", "s"}).exit_code, kDone);
  EXPECT_EQ(follower.process().wait(in_seconds(30)), kDropped) << follower.log();
  EXPECT_THAT(follower.log(), HasSubstr("dropped"));
  EXPECT_EQ(StockReader(replica).query("SELECT count(*) FROM t"), "[[0]]");
  EXPECT_EQ(server_.run({"follow", "s", replica}).exit_code, kDropped);
}

TEST_F(CommandTest, FollowTellsProgramsWhatHappens) {
  server_.create("s");
  server_.query("s", "CREATE TABLE t (a)");
  FollowerProcess follower(folder_, server_.database_url("s"), folder_ / "s.db",
                           {"--json", "--verify"});
  follower.start();
  auto wait_for = [&](const std::string& text) {
    for (Deadline end = in_seconds(60); SteadyClock::now() < end;
         std::this_thread::sleep_for(std::chrono::milliseconds(5))) {
      if (follower.log().find(text) != std::string::npos) return;
    }
    FAIL() << text << " did not come:\n" << follower.log();
  };
  wait_for(R"("event":"caught_up")");
  server_.query("s", "INSERT INTO t VALUES (1)");
  wait_for(R"("event":"applied")");
  wait_for(R"("event":"heartbeat")");
  ASSERT_TRUE(server_.restart());
  wait_for(R"("event":"interrupted")");
  server_.query("s", "INSERT INTO t VALUES (2)");
  wait_for(R"("txid":3)");
  EXPECT_EQ(follower.terminate(), kDone);
  wait_for(R"("event":"ended")");
  std::ifstream lines(folder_ / "follow.log");
  for (std::string line; std::getline(lines, line);)
    EXPECT_NE(json_field(line, "event"), "") << line;
}

TEST_F(CommandTest, DoctorFindsWhatIsWrong) {
  Finished done = server_.run({"doctor", "--data", folder_ / ""});
  EXPECT_EQ(done.exit_code, kDone) << done.out << done.err;
  for (const char* check : {"clock", "disk", "flush", "server"})
    EXPECT_THAT(done.out, HasSubstr(check));
  EXPECT_THAT(done.out, HasSubstr("answers in"));
  done = server_.run({"doctor", "--json", "--data", "/dev/shm"});
  EXPECT_EQ(done.exit_code, kFailed) << done.out << done.err;
  EXPECT_THAT(done.out, HasSubstr(R"({"level":"problem","check":"disk","found":"/dev/shm is on )"));
  // Nobody is there.
  const std::string nobody = "http://127.0.0.1:1";
  done = server_.run({"doctor", "--server", nobody, "--etcd", nobody});
  EXPECT_EQ(done.exit_code, kFailed) << done.out << done.err;
  EXPECT_THAT(done.out, AllOf(HasSubstr("problem  etcd"), HasSubstr("problem  server")));
}

TEST_F(CommandTest, BenchMeasuresAndCleansUp) {
  for (const char* mode : {"insert", "read", "batch"}) {
    Finished done =
        server_.run({"bench", "--mode", mode, "--seconds", "0.5", "--clients", "8", "--json"});
    EXPECT_EQ(done.exit_code, kDone) << done.err;
    EXPECT_GT(std::atoi(json_field(done.out, "requests").c_str()), 10) << done.out;
    EXPECT_EQ(json_field(done.out, "errors"), "0") << done.out;
    EXPECT_NE(json_field(done.out, "server_cpu_us"), "null") << done.out;
  }
  EXPECT_EQ(server_.run({"db", "list"}).out, "");
}

}  // namespace
}  // namespace offprint::testing
