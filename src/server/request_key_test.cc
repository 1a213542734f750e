// Requests with an Idempotency-Key happen once: docs/protocol/http.md, "Once only".
#include <gtest/gtest.h>

#include <fmt/format.h>
#include <sqlite3.h>

#include "archive/s3_signature.h"
#include "base/bytes.h"
#include "server/store_testing.h"

namespace offprint::server {
namespace {

class RequestKeyTest : public testing::RoutesTest {
 protected:
  void SetUp() override {
    options.key_answer_bytes_max = 4 << 10;
    RoutesTest::SetUp();
    create("q");
    post("/db/q/query", R"_({"sql":"CREATE TABLE t(id INTEGER PRIMARY KEY, v)"})_");
  }
  static std::string with(const std::string& key) { return "Idempotency-Key: " + key + "\r\n"; }
  Response keyed(const std::string& target, const std::string& body, const std::string& key) {
    return ask("POST", target, body, with(key));
  }
  // The same request twice; the same answer, and it happened once.
  Response twice(const std::string& target, const std::string& body, const std::string& key) {
    Response first = keyed(target, body, key);
    const std::string rows = count();
    Response again = keyed(target, body, key);
    EXPECT_EQ(first.status, again.status) << target;
    EXPECT_EQ(first.content_type, again.content_type) << target;
    EXPECT_EQ(first.headers, again.headers) << target;
    EXPECT_EQ(first.body, again.body) << target;
    EXPECT_EQ(count(), rows) << target;
    return first;
  }
  std::string select(const std::string& sql) {
    const std::string body = post("/db/q/query", "{\"sql\":\"" + sql + "\"}");
    return testing::between(body, "\"rows\":", ",\"changes\"");
  }
  std::string count() { return select("SELECT count(*) FROM t"); }
};

constexpr char kInsert[] = R"_({"sql":"INSERT INTO t(v) VALUES(random()) RETURNING id, v"})_";

TEST_F(RequestKeyTest, ARetryGetsTheFirstAnswerInEachProtocol) {
  const std::string execute =
      R"_({"requests":[{"type":"execute","stmt":{"sql":"INSERT INTO t(v) VALUES(random()) )_"
      R"_(RETURNING id, v"}},{"type":"close"}]})_";
  const std::string statement =
      R"_({"stmt":{"sql":"INSERT INTO t(v) VALUES(random()) RETURNING v"}})_";
  const std::string batch =
      R"_({"batch":{"steps":[{"stmt":{"sql":"INSERT INTO t(v) VALUES(random()) RETURNING v"}}]}})_";
  EXPECT_EQ(twice("/db/q/query", kInsert, "a").status, 200);
  EXPECT_EQ(
      twice("/db/q/query", R"_(["INSERT INTO t(v) VALUES(1)","SELECT random()"])_", "b").status,
      200);
  EXPECT_EQ(twice("/db/q/v2/pipeline", execute, "c").status, 200);
  EXPECT_EQ(twice("/db/q/v3/pipeline", execute, "d").status, 200);
  EXPECT_EQ(twice("/db/q/v1/execute", statement, "e").status, 200);
  EXPECT_EQ(twice("/db/q/v1/batch", batch, "f").status, 200);
  EXPECT_EQ(twice("/db/q/v3/cursor", batch, "g").status, 200);
  EXPECT_EQ(twice("/db/q/query?resultsFormat=ROWS_AND_COLUMNS",
                  R"_({"sql":"INSERT INTO t(v) VALUES(random()) RETURNING v","params":[]})_", "h")
                .status,
            200);
  EXPECT_EQ(count(), "[[8]]");
}

TEST_F(RequestKeyTest, TheBookmarkIsThatOfTheFirst) {
  Response first = keyed("/db/q/query", kInsert, "k");
  post("/db/q/query", kInsert);
  const auto newest = store->info(*database::DatabaseName::parse("q"))->bookmark.text();
  Response again = keyed("/db/q/query", kInsert, "k");
  EXPECT_EQ(again.headers, first.headers);
  EXPECT_NE(first.headers.find("Offprint-Bookmark: "), std::string::npos);
  EXPECT_EQ(first.headers.find(newest), std::string::npos);
  // And it is what the database had then.
  const std::string bookmark = testing::between(first.body, "\"bookmark\":\"", "\"");
  EXPECT_NE(ask("POST", "/db/q/query", R"_({"sql":"SELECT count(*) FROM t"})_",
                "Offprint-At: " + bookmark + "\r\n")
                .body.find("[[1]]"),
            std::string::npos);
}

TEST_F(RequestKeyTest, AKeyIsOfOneRequest) {
  keyed("/db/q/query", kInsert, "k");
  Response other = keyed("/db/q/query", R"_({"sql":"INSERT INTO t(v) VALUES(2)"})_", "k");
  EXPECT_EQ(other.status, 422);
  EXPECT_NE(other.body.find("\"IDEMPOTENCY_KEY_REUSED\""), std::string::npos) << other.body;
  Response plain = keyed(
      "/db/q/v2/pipeline",
      R"_({"requests":[{"type":"execute","stmt":{"sql":"INSERT INTO t(v) VALUES(2)"}},{"type":"close"}]})_",
      "k");
  EXPECT_EQ(plain.status, 422);
  EXPECT_EQ(count(), "[[1]]");
  EXPECT_EQ(keyed("/db/q/query", kInsert, std::string(256, 'x')).status, 400);
  EXPECT_EQ(keyed("/db/q/query", kInsert, "a b").status, 400);
  EXPECT_EQ(keyed("/db/q/query", kInsert, "").status, 400);
  EXPECT_EQ(keyed("/db/q/query", kInsert, std::string(255, 'x')).status, 200);
}

TEST_F(RequestKeyTest, OnlyWhatCommittedIsKept) {
  const std::string body = R"_({"sql":"INSERT INTO t VALUES(7, 1)"})_";
  post("/db/q/query", R"_({"sql":"INSERT INTO t VALUES(7, 0)"})_");
  EXPECT_EQ(keyed("/db/q/query", body, "k").status, 400);
  post("/db/q/query", R"_({"sql":"DELETE FROM t"})_");
  EXPECT_EQ(keyed("/db/q/query", body, "k").status, 200);
  EXPECT_EQ(select("SELECT v FROM t"), "[[1]]");
  // A read is answered as it is now.
  const std::string read = R"_({"sql":"SELECT count(*) FROM t"})_";
  EXPECT_NE(keyed("/db/q/query", read, "r").body.find("[[1]]"), std::string::npos);
  post("/db/q/query", R"_({"sql":"DELETE FROM t"})_");
  EXPECT_NE(keyed("/db/q/query", read, "r").body.find("[[0]]"), std::string::npos);
}

TEST_F(RequestKeyTest, WhatEndsTheWholeTransactionIsRefusedAndUndone) {
  post("/db/q/query", R"_({"sql":"INSERT INTO t VALUES(7, 0)"})_");
  const std::string pipeline =
      R"_({"requests":[{"type":"execute","stmt":{"sql":"INSERT INTO t VALUES(8, 0)"}},)_"
      R"_({"type":"execute","stmt":{"sql":"INSERT OR ROLLBACK INTO t VALUES(7, 0)"}},)_"
      R"_({"type":"close"}]})_";
  Response refused = keyed("/db/q/v2/pipeline", pipeline, "k");
  EXPECT_EQ(refused.status, 400);
  EXPECT_NE(refused.body.find("SQLITE_CONSTRAINT"), std::string::npos) << refused.body;
  EXPECT_EQ(count(), "[[1]]");
  Response vacuum = keyed("/db/q/query", R"_({"sql":"VACUUM"})_", "v");
  EXPECT_EQ(vacuum.status, 400);
  EXPECT_NE(vacuum.body.find("IDEMPOTENCY_KEY_UNUSABLE"), std::string::npos) << vacuum.body;
}

TEST_F(RequestKeyTest, OfALargeAnswerItIsKnownThatItWas) {
  const std::string body =
      R"_({"sql":"INSERT INTO t(v) VALUES(printf('%.*c', 5000, 'x')) RETURNING v"})_";
  Response first = keyed("/db/q/query", body, "k");
  EXPECT_EQ(first.status, 200);
  Response again = keyed("/db/q/query", body, "k");
  EXPECT_EQ(again.status, 410);
  EXPECT_NE(again.body.find("\"RESULT_NOT_KEPT\""), std::string::npos) << again.body;
  EXPECT_NE(again.body.find(testing::between(first.body, "\"bookmark\":\"", "\"")),
            std::string::npos);
  EXPECT_EQ(count(), "[[1]]");
}

TEST_F(RequestKeyTest, AStreamEndsWithItsRequest) {
  const std::string open =
      R"_({"requests":[{"type":"execute","stmt":{"sql":"INSERT INTO t(v) VALUES(1)"}}]})_";
  Response answer = keyed("/db/q/v2/pipeline", open, "k");
  EXPECT_NE(answer.body.find("\"baton\":null"), std::string::npos) << answer.body;
  Response goes_on = keyed("/db/q/v2/pipeline", R"_({"baton":"x","requests":[]})_", "l");
  EXPECT_EQ(goes_on.status, 400);
  EXPECT_NE(goes_on.body.find("IDEMPOTENCY_KEY_UNUSABLE"), std::string::npos);
  // A transaction that is left open is rolled back, and nothing is kept of it.
  const std::string left = R"_({"requests":[{"type":"execute","stmt":{"sql":"BEGIN"}},)_"
                           R"_({"type":"execute","stmt":{"sql":"INSERT INTO t(v) VALUES(2)"}}]})_";
  keyed("/db/q/v2/pipeline", left, "m");
  EXPECT_EQ(count(), "[[1]]");
  EXPECT_EQ(keyed("/db/q/query", kInsert, "m").status, 200);
}

TEST_F(RequestKeyTest, ItIsKeptOverARestart) {
  Response first = keyed("/db/q/query", kInsert, "k");
  close();
  open();
  Response again = keyed("/db/q/query", kInsert, "k");
  EXPECT_EQ(first.headers + first.body, again.headers + again.body);
  EXPECT_EQ(count(), "[[1]]");
}

TEST_F(RequestKeyTest, AStateKnowsWhatIsInIt) {
  keyed("/db/q/query", kInsert, "before");
  const auto name = *database::DatabaseName::parse("q");
  const Bookmark then = store->info(name)->bookmark;
  keyed("/db/q/query", kInsert, "after");
  ASSERT_EQ(count(), "[[2]]");
  auto state = store->snapshot_at(name, then);
  ASSERT_TRUE(state);
  ASSERT_TRUE(store->rewrite(name, **state));
  keyed("/db/q/query", kInsert, "before");
  ASSERT_EQ(count(), "[[1]]");
  keyed("/db/q/query", kInsert, "after");  // it is not there any more, and happens
  EXPECT_EQ(count(), "[[2]]");
}

TEST_F(RequestKeyTest, UsersDoNotMeetTheTable) {
  keyed("/db/q/query", kInsert, "k");
  for (const char* sql :
       {"DROP TABLE sqlite_offprint_requests", "SELECT * FROM sqlite_offprint_requests",
        "DELETE FROM sqlite_offprint_requests",
        "INSERT INTO SQLITE_OFFPRINT_REQUESTS(key) VALUES('x')",
        "UPDATE sqlite_offprint_requests SET key='x'",
        "WITH a AS (SELECT key FROM sqlite_offprint_requests) SELECT * FROM a"}) {
    Response refused = ask("POST", "/db/q/query", fmt::format("{{\"sql\":\"{}\"}}", sql));
    EXPECT_EQ(refused.status, 403) << sql << refused.body;
  }
  for (const char* sql :
       {"CREATE TABLE sqlite_offprint_x(a)", "CREATE INDEX i ON sqlite_offprint_requests(key)",
        "CREATE TRIGGER r AFTER INSERT ON sqlite_offprint_requests BEGIN SELECT 1; END"}) {
    EXPECT_EQ(ask("POST", "/db/q/query", fmt::format("{{\"sql\":\"{}\"}}", sql)).status, 400)
        << sql;
  }
  EXPECT_EQ(select("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'"),
            R"_([["t"]])_");
  EXPECT_EQ(select("PRAGMA integrity_check"), R"_([["ok"]])_");
  post("/db/q/query", R"_({"sql":"VACUUM"})_");
  EXPECT_EQ(keyed("/db/q/query", kInsert, "k").status, 200);
  EXPECT_EQ(count(), "[[1]]");
  auto client = send("GET", "/db/q/dump");
  Response dump = client->wait();
  EXPECT_EQ(testing::read_all(dump, client).find("offprint"), std::string::npos);
  // changes() and last_insert_rowid() are of the user's own statements.
  Response own = keyed(
      "/db/q/query",
      R"_(["INSERT INTO t VALUES(100, 0)","SELECT changes(), total_changes(), last_insert_rowid()"])_",
      "own");
  EXPECT_NE(own.body.find("[[1,1,100]]"), std::string::npos) << own.body;
}

// A file as version 1 of the format has it: docs/format/request-keys.md.
TEST_F(RequestKeyTest, AFileOfYesterdayIsRead) {
  const std::string path = directory + "/yesterday.db";
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
  sqlite3_db_config(db, SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1, nullptr);
  std::string sql =
      "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"
      "CREATE TABLE sqlite_offprint_requests(number INTEGER PRIMARY KEY, key TEXT NOT NULL "
      "UNIQUE, at_ms INTEGER NOT NULL, content BLOB NOT NULL, bookmark TEXT NOT NULL, answer "
      "BLOB);";
  const std::string row =
      "INSERT INTO sqlite_offprint_requests VALUES({}, '{}', 1, x'{}', "
      "'00000001-00000000-00000002-000102030405060708090a0b0c0d0e0f', {});";
  const std::string hash = archive::sha256_hex(as_bytes(std::string("query\n") + kInsert));
  // 200, application/json, the field "A: b", the body "{}".
  sql += fmt::format(fmt::runtime(row), 1, "one", hash, "x'010000C800000006413A20620D0A7B7D'");
  sql += fmt::format(fmt::runtime(row), 2, "newer", hash, "x'020000C800000000'");
  sql += fmt::format(fmt::runtime(row), 3, "damaged", hash, "x'010000C8000000FF'");
  ASSERT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK)
      << sqlite3_errmsg(db);
  sqlite3_close(db);
  ASSERT_TRUE(store->import_file(*database::DatabaseName::parse("old"), path));
  Response one = keyed("/db/old/query", kInsert, "one");
  EXPECT_EQ(one.status, 200);
  EXPECT_EQ(one.headers, "A: b\r\n");
  EXPECT_EQ(one.body, "{}");
  EXPECT_EQ(keyed("/db/old/query", kInsert, "newer").status, 503);
  EXPECT_EQ(keyed("/db/old/query", kInsert, "damaged").status, 500);
  EXPECT_EQ(keyed("/db/old/query", kInsert, "own").status, 200);
}

class RequestKeyLimitsTest : public RequestKeyTest {
 protected:
  void SetUp() override {
    options.keys_max = 40;
    options.key_age_max_ms = 60'000;
    options.wall_clock_ms = [this] { return now_ms; };
    RequestKeyTest::SetUp();
  }
  bool is_kept(const std::string& key) {
    const std::string before = count();
    keyed("/db/q/query", kInsert, key);
    return count() == before;
  }
  std::int64_t now_ms = 1'000'000'000;
};

TEST_F(RequestKeyLimitsTest, TheOldestGo) {
  for (int i = 0; i < 200; ++i) keyed("/db/q/query", kInsert, fmt::format("k{}", i));
  EXPECT_TRUE(is_kept("k199"));
  EXPECT_TRUE(is_kept("k165"));
  EXPECT_FALSE(is_kept("k100"));
  now_ms += 61'000;
  for (int i = 0; i < 16; ++i) keyed("/db/q/query", kInsert, fmt::format("later{}", i));
  EXPECT_FALSE(is_kept("k199"));
  EXPECT_TRUE(is_kept("later15"));
}

}  // namespace
}  // namespace offprint::server
