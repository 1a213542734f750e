// What Workers' D1 bindings send, directly and through Miniflare's proxy. docs/protocol/d1.md.
#include <gtest/gtest.h>

#include "server/store_testing.h"

namespace offprint::server {
namespace {

using testing::between;

class D1Binding : public testing::RoutesTest {
 protected:
  void SetUp() override {
    RoutesTest::SetUp();
    create("d");
  }
  std::string query(const std::string& body, int status = 200) {
    return post("/db/d/query?resultsFormat=ROWS_AND_COLUMNS", body, status);
  }
  std::string execute(const std::string& body, int status = 200) {
    return post("/db/d/execute?resultsFormat=NONE", body, status);
  }
  static std::string results(const std::string& answer) {
    return between(answer, "\"results\":", ",\"meta\"");
  }
  static std::string error_of(const std::string& answer) {
    EXPECT_TRUE(answer.starts_with("{\"success\":false,\"error\":\"")) << answer;
    return between(answer, "\"error\":\"", "\"}");
  }
  static std::string token_of(const Response& response) {
    return between(response.headers, "x-cf-d1-session-commit-token: ", "\r\n");
  }
};

TEST_F(D1Binding, RowsInBothForms) {
  std::string made = execute(R"_({"sql":"CREATE TABLE t(id INTEGER PRIMARY KEY, v)"})_");
  EXPECT_EQ(results(made), "[]");
  EXPECT_NE(made.find("\"changed_db\":true"), std::string::npos) << made;
  EXPECT_NE(made.find("\"size_after\":8192"), std::string::npos) << made;
  std::string added = execute(R"_({"sql":"INSERT INTO t(v) VALUES (?),(?2),(?),(?),(?),(?)",)_"
                              R"_("params":[1,1.5,"x",null,true,[0,255]]})_");
  EXPECT_NE(added.find("\"changes\":6,\"last_row_id\":6,\"changed_db\":true"), std::string::npos)
      << added;
  EXPECT_NE(added.find("\"rows_written\":6,\"total_attempts\":1}}"), std::string::npos) << added;
  const std::string select =
      R"_({"sql":"SELECT id, v FROM t WHERE id > ? ORDER BY id","params":[3]})_";
  std::string arrays = query(select);
  EXPECT_EQ(results(arrays), R"_({"columns":["id","v"],"rows":[[4,null],[5,1],[6,[0,255]]]})_");
  EXPECT_NE(arrays.find("\"served_by\":\"local\",\"served_by_primary\":true"), std::string::npos);
  EXPECT_NE(arrays.find("\"changed_db\":false"), std::string::npos) << arrays;
  EXPECT_EQ(results(execute(select)),
            R"_([{"id":4,"v":null},{"id":5,"v":1},{"id":6,"v":[0,255]}])_");
  EXPECT_EQ(results(query(R"_({"sql":"SELECT 1 WHERE 0"})_")), R"_({"columns":["1"],"rows":[]})_");
  EXPECT_EQ(results(query(R"_({"sql":"SELECT ?","params":[[]]})_")),
            R"_({"columns":["?"],"rows":[[[]]]})_");
  std::string unchanged = execute(R"_({"sql":"UPDATE t SET v=0 WHERE id=99"})_");
  EXPECT_NE(unchanged.find("\"changed_db\":false"), std::string::npos) << unchanged;
}

TEST_F(D1Binding, NumbersAsJavaScriptWritesThem) {
  EXPECT_EQ(
      results(query(
          R"_({"sql":"SELECT ?,?,?,'\"123456789012345678901' AS s, ?",)_"
          R"_("params":[100000000000000000000,-15000000000000000000000,1e21,0.1234567890123456789]})_")),
      R"_({"columns":["?","?","?","s","?"],"rows":[[1e+20,-1.5e+22,1e+21,"\"123456789012345678901",0.12345678901234568]]})_");
  EXPECT_EQ(results(query(
                R"_({"sql":"SELECT ?, ?","params":[9223372036854775807,18446744073709551616]})_")),
            R"_({"columns":["?","?"],"rows":[[9223372036854775807,18446744073709551616.0]]})_");
  EXPECT_NE(error_of(query(R"_({"sql":"SELECT ?","params":[0123456789012345678901]})_")), "");
}

TEST_F(D1Binding, ABatchIsAllOrNothing) {
  execute(R"_({"sql":"CREATE TABLE t(id INTEGER PRIMARY KEY)"})_");
  std::string failed = query(R"_([{"sql":"INSERT INTO t VALUES (?)","params":[1]},)_"
                             R"_({"sql":"INSERT INTO t VALUES (1)"}])_");
  EXPECT_EQ(error_of(failed), "UNIQUE constraint failed: t.id: SQLITE_CONSTRAINT");
  EXPECT_EQ(results(query(R"_({"sql":"SELECT count(*) AS n FROM t"})_")),
            R"_({"columns":["n"],"rows":[[0]]})_");
  std::string done = query(R"_([{"sql":"INSERT INTO t VALUES (1)"},{"sql":"SELECT * FROM t"}])_");
  EXPECT_TRUE(done.starts_with(R"_([{"success":true,"results":{"columns":[],"rows":[]},)_"))
      << done;
  EXPECT_NE(done.find(R"_({"success":true,"results":{"columns":["id"],"rows":[[1]]},)_"),
            std::string::npos)
      << done;
  EXPECT_EQ(query("[]"), "[]");
  // One of the statements ends SQLite's whole transaction.
  query(R"_([{"sql":"INSERT INTO t VALUES (2)"},{"sql":"INSERT OR ROLLBACK INTO t VALUES (1)"}])_");
  EXPECT_EQ(results(query(R"_({"sql":"SELECT id FROM t"})_")),
            R"_({"columns":["id"],"rows":[[1]]})_");
}

TEST_F(D1Binding, ATextOfManyStatementsIsOneTransaction) {
  std::string made = execute(
      R"_({"sql":"CREATE TABLE t(id INTEGER PRIMARY KEY, v);)_"
      R"_(CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE t SET v=v||';' WHERE id=new.id; END;)_"
      R"_( INSERT INTO t(v) VALUES (?), (?); SELECT v FROM t WHERE id=?; -- the end","params":["a;","b",2]})_");
  EXPECT_EQ(results(made), R"_([{"v":"b;"}])_");
  EXPECT_NE(made.find("\"changes\":4"), std::string::npos) << made;
  EXPECT_EQ(error_of(execute(R"_({"sql":"DELETE FROM t; INSERT INTO u VALUES (1);"})_")),
            "no such table: u: SQLITE_ERROR");
  EXPECT_EQ(results(execute(R"_({"sql":"SELECT count(*) AS n FROM t"})_")), R"_([{"n":2}])_");
  for (const char* params : {"[]", "[1,2,3]"}) {
    std::string sql = R"_({"sql":"DELETE FROM t WHERE id=?; DELETE FROM t WHERE id=?;","params":)_";
    EXPECT_NE(error_of(execute(sql + params + "}")).find("ARGS_INVALID"), std::string::npos);
  }
  EXPECT_EQ(results(execute(R"_({"sql":"SELECT count(*) AS n FROM t"})_")), R"_([{"n":2}])_");
  std::string lines =
      execute(R"_([{"sql":"INSERT INTO t(v) VALUES (1);"},{"sql":" "},{"sql":"SELECT 1 AS x"}])_");
  EXPECT_NE(lines.find(R"_({"success":true,"results":[],)_"), std::string::npos) << lines;
  EXPECT_NE(lines.find(R"_("results":[{"x":1}])_"), std::string::npos) << lines;
}

TEST_F(D1Binding, LongTextsTakeTimeInProportion) {
  execute(R"_({"sql":"CREATE TABLE t(v)"})_");
  std::string sql;
  for (int i = 0; i < 100'000; ++i) sql += "INSERT INTO t VALUES('0123456789012345678');";
  std::string answer = execute("{\"sql\":\"" + sql + "\"}");
  EXPECT_NE(answer.find("\"changes\":100000"), std::string::npos) << answer;
}

TEST_F(D1Binding, TransactionControlIsRefusedWithAHint) {
  for (const char* sql : {"BEGIN", "/* x */ begin immediate", "COMMIT", "END", "ROLLBACK",
                          "SAVEPOINT a", "RELEASE a", "SELECT 1; COMMIT; SELECT 2"}) {
    std::string error = error_of(execute("{\"sql\":\"" + std::string(sql) + "\"}"));
    EXPECT_NE(error.find("/db/NAME/"), std::string::npos) << error;
  }
}

TEST_F(D1Binding, ErrorsAreSqlitesOwn) {
  EXPECT_EQ(error_of(query(R"_({"sql":"SELECT * FROM nope"})_")),
            "no such table: nope: SQLITE_ERROR");
  EXPECT_EQ(error_of(query(R"_({"sql":"SELEC 1"})_")),
            "near \\\"SELEC\\\": syntax error: SQLITE_ERROR");
  EXPECT_NE(error_of(query(R"_({"sql":"ATTACH 'x' AS y"})_")).find(": SQLITE_AUTH"),
            std::string::npos);
  EXPECT_NE(error_of(query(R"_({"sql":"SELECT 'a\u0000b'"})_")).find("SQL_HAS_NUL"),
            std::string::npos);
  EXPECT_NE(
      error_of(query(R"_({"sql":"SELECT 1; SELECT 2 \u0000; SELECT 3"})_")).find("SQL_HAS_NUL"),
      std::string::npos);
  for (const char* body :
       {"", "1", "{}", "{\"sql\":1}", "[1]", "[[]]", "{\"sql\":\"SELECT ?\"}",
        "{\"sql\":\"SELECT ?\",\"params\":1}", "{\"sql\":\"\"}",
        "{\"sql\":\"SELECT ?\",\"params\":[{}]}", "{\"sql\":\"SELECT ?\",\"params\":[[256]]}",
        "{\"sql\":\"SELECT ?\",\"params\":[[-1]]}", "{\"sql\":\"SELECT ?\",\"params\":[[\"a\"]]}",
        "{\"sql\":\"SELECT ?\",\"params\":[1,2]}"}) {
    error_of(query(body));
  }
  EXPECT_NE(post("/db/nope/execute", R"_({"sql":"SELECT 1"})_", 404).find("\"success\":false"),
            std::string::npos);
  EXPECT_EQ(ask("GET", "/db/d/execute").status, 405);
}

TEST_F(D1Binding, AResultHasALimit) {
  service->options.response_bytes_max = 1000;
  EXPECT_NE(error_of(query(R"_({"sql":"SELECT zeroblob(600)"})_")).find("RESPONSE_TOO_LARGE"),
            std::string::npos);
  // … all results of a batch together.
  const std::string part = R"_({"sql":"SELECT zeroblob(200)"})_";
  EXPECT_NE(error_of(query("[" + part + "," + part + "," + part + "]")).find("RESPONSE_TOO_LARGE"),
            std::string::npos);
}

TEST_F(D1Binding, SessionsCarryBookmarks) {
  const std::string at = "/db/d/query?resultsFormat=NONE";
  const std::string token = "x-cf-d1-session-commit-token: ";
  Response written =
      ask("POST", at, R"_({"sql":"CREATE TABLE t(v)"})_", token + "first-primary\r\n");
  std::string bookmark = token_of(written);
  ASSERT_EQ(bookmark.size(), 59u) << written.headers;
  EXPECT_EQ(bookmark, store->info(*database::DatabaseName::parse("d"))->bookmark.text());
  Response read = ask("POST", at, R"_({"sql":"SELECT 1"})_", token + bookmark + "\r\n");
  EXPECT_EQ(token_of(read), bookmark);
  EXPECT_EQ(ask("POST", at, R"_({"sql":"SELECT 1"})_", token + "first-unconstrained\r\n").status,
            200);
  EXPECT_NE(error_of(ask("POST", at, R"_({"sql":"SELECT 1"})_", token + "first\r\n").body)
                .find("bookmark"),
            std::string::npos);
  // A state that was not reached yet: waited for until the deadline.
  service->options.request_timeout_ms = 50;
  bookmark[25] = '9';
  Response behind = ask("POST", at, R"_({"sql":"SELECT 1"})_", token + bookmark + "\r\n");
  EXPECT_EQ(behind.status, 503) << behind.body;
  EXPECT_NE(behind.body.find("\"success\":false"), std::string::npos);
}

TEST_F(D1Binding, WhatMakesAQueryAtTheRootD1s) {
  const std::string body = R"_({"sql":"SELECT 7 AS x"})_";
  EXPECT_NE(post("/query?resultsFormat=NONE", body).find("\"success\":true"), std::string::npos);
  EXPECT_NE(post("/execute", body).find("[{\"x\":7}]"), std::string::npos);
  EXPECT_NE(post("/query", body, 200, "x-cf-d1-session-commit-token: first-primary\r\n")
                .find("\"success\":true"),
            std::string::npos);
  EXPECT_NE(post("/query", body).find("{\"results\":[{\"columns\""), std::string::npos);
  EXPECT_NE(post("/db/d/query", body).find("{\"results\":[{\"columns\""), std::string::npos);
  post("/execute", R"_({"sql":"CREATE TABLE only_in_d(v)"})_", 200, "x-namespace: d\r\n");
  EXPECT_NE(query(R"_({"sql":"SELECT count(*) AS n FROM only_in_d"})_").find("[[0]]"),
            std::string::npos);
  EXPECT_EQ(ask("POST", "/dump").content_type, "application/vnd.sqlite3");
  EXPECT_EQ(ask("POST", "/db/d/dump").content_type, "application/vnd.sqlite3");
}

TEST_F(D1Binding, MiniflaresProxy) {
  const std::string body = R"_({"sql":"SELECT 7 AS x"})_";
  auto proxied = [&](const std::string& url, const std::string& more = {}) {
    return ask("POST", "/db/d/d1-proxy?token=t", body,
               "MF-URL: " + url + "\r\nMF-Binding: DB\r\n" + more);
  };
  Response rows = proxied("http://d1/query?resultsFormat=ROWS_AND_COLUMNS");
  EXPECT_NE(rows.body.find(R"_({"columns":["x"],"rows":[[7]]})_"), std::string::npos) << rows.body;
  EXPECT_FALSE(token_of(rows).empty());
  Response refused = proxied("http://d1/execute?resultsFormat=NONE",
                             "MF-Header-x-cf-d1-session-commit-token: nonsense\r\n");
  EXPECT_NE(refused.body.find("nonsense"), std::string::npos) << refused.body;
  EXPECT_EQ(proxied("http://d1/dump").content_type, "application/vnd.sqlite3");
  for (const char* url : {"http://d1/import", "http://d1", "/query", "http://d1/../other/query"})
    EXPECT_EQ(proxied(url).status, 404) << url;
  EXPECT_EQ(ask("POST", "/db/d/d1-proxy", body).status, 404);
  EXPECT_EQ(
      ask("GET", "/db/d/d1-proxy", {}, "Upgrade: websocket\r\nConnection: Upgrade\r\n").status,
      404);
  // What a Worker says of itself does not replace what the connection says.
  EXPECT_EQ(ask("POST", "/db/d/d1-proxy", body,
                "MF-URL: http://d1/query?resultsFormat=NONE\r\nOrigin: http://evil.example\r\n"
                "MF-Header-Origin: http://x\r\nMF-Header-Host: evil.example\r\n")
                .status,
            403);
}

}  // namespace
}  // namespace offprint::server
