// Cursors, Hrana 1 over HTTP, replication indices, and which database a root address means.
#include <thread>

#include <gtest/gtest.h>

#include "server/cursor.h"
#include "server/store_testing.h"

namespace offprint::server {
namespace {

using testing::between;

class CursorTest : public testing::RoutesTest {
 protected:
  CursorTest() { options.transaction_idle_ms = 300; }
  void SetUp() override {
    RoutesTest::SetUp();
    create("h");
  }
  static std::string step(const std::string& sql, const std::string& condition = "null") {
    return "{\"condition\":" + condition + R"_(,"stmt":{"sql":")_" + sql + "\"}}";
  }
  static std::string batch(const std::string& steps, const std::string& baton = {}) {
    return "{\"baton\":" + (baton.empty() ? "null" : "\"" + baton + "\"") +
           R"_(,"batch":{"steps":[)_" + steps + "]}}";
  }
  // The whole body, whether it was sent at once or as a stream.
  static std::string read(const std::shared_ptr<testing::FakeClient>& client) {
    Response response = client->wait();
    EXPECT_EQ(response.status, 200) << response.body;
    if (!response.stream) return response.body;
    std::string text;
    response.stream->start(client);
    for (;;) {
      auto state = response.stream->fill(text);
      if (state == BodyStream::State::kEnd) return text;
      if (state == BodyStream::State::kFailed) {
        ADD_FAILURE() << "the stream failed";
        return text;
      }
      if (state == BodyStream::State::kWait) client->wait_for_wake();
    }
  }
  std::string cursor(const std::string& steps, const std::string& baton = {}) {
    return read(send("POST", "/db/h/v3/cursor", batch(steps, baton)));
  }
  // What follows the line with the baton.
  static std::string entries(const std::string& answer) {
    return answer.substr(answer.find('\n') + 1);
  }
  static std::string baton_of(const std::string& answer) {
    return between(answer, "{\"baton\":\"", "\"");
  }
  // A helper may have the last hold on one.
  void expect_files_gone() {
    Deadline until = SteadyClock::now() + std::chrono::seconds(10);
    while (service->spooled_bytes != 0 && SteadyClock::now() < until) std::this_thread::yield();
    EXPECT_EQ(service->spooled_bytes.load(), 0u);
  }
  static std::size_t count(const std::string& text, const std::string& what) {
    std::size_t found = 0;
    for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; ++at) ++found;
    return found;
  }
};

TEST_F(CursorTest, IsExact) {
  std::string answer = cursor(step("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)") + "," +
                              step("INSERT INTO t VALUES (7,'a'),(8,'b\\nc')") + "," +
                              step("SELECT id, v FROM t") + "," + step("SELECT * FROM nowhere") +
                              "," + step("SELECT 1", R"_({"type":"ok","step":3})_"));
  EXPECT_TRUE(answer.starts_with("{\"baton\":\"")) << answer;
  EXPECT_EQ(between(answer, "\",\"base", "\n"), "_url\":null}");
  std::string index = between(entries(answer), "\"replication_index\":\"", "\"");
  EXPECT_EQ(
      entries(answer),
      R"_({"type":"step_begin","step":0,"cols":[]})_"
      "\n"
      R"_({"type":"step_end","affected_row_count":0,"last_insert_rowid":"0"})_"
      "\n"
      R"_({"type":"step_begin","step":1,"cols":[]})_"
      "\n"
      R"_({"type":"step_end","affected_row_count":2,"last_insert_rowid":"8"})_"
      "\n"
      R"_({"type":"step_begin","step":2,"cols":[{"name":"id","decltype":"INTEGER"},{"name":"v","decltype":"TEXT"}]})_"
      "\n"
      R"_({"type":"row","row":[{"type":"integer","value":"7"},{"type":"text","value":"a"}]})_"
      "\n"
      R"_({"type":"row","row":[{"type":"integer","value":"8"},{"type":"text","value":"b\nc"}]})_"
      "\n"
      R"_({"type":"step_end","affected_row_count":0,"last_insert_rowid":null})_"
      "\n"
      R"_({"type":"step_error","step":3,"error":{"message":"SQLite error: no such table: nowhere",)_"
      R"_("code":"SQLITE_ERROR","extended_code":"SQLITE_ERROR"}})_"
      "\n"
      R"_({"type":"replication_index","replication_index":")_" +
          index + "\"}\n");
  EXPECT_EQ(index,
            std::to_string(store->position(*database::DatabaseName::parse("h"))->txid.value));
}

TEST_F(CursorTest, GoesOnWithATransaction) {
  std::string baton = baton_of(cursor(step("CREATE TABLE t(id)") + "," + step("BEGIN IMMEDIATE") +
                                      "," + step("INSERT INTO t VALUES (1)")));
  ASSERT_FALSE(baton.empty());
  EXPECT_NE(cursor(step("SELECT count(*) AS n FROM t")).find("\"value\":\"0\""), std::string::npos);
  std::string answer = cursor(
      step("SELECT count(*) AS n FROM t") + "," + step("SELECT 5", R"_({"type":"is_autocommit"})_"),
      baton);
  EXPECT_NE(answer.find("\"value\":\"1\""), std::string::npos);
  EXPECT_EQ(count(answer, "step_begin"), 1u) << "it is in a transaction";
  // A pipeline goes on with the stream of a cursor.
  std::string committed = post("/db/h/v3/pipeline", R"_({"baton":")_" + baton_of(answer) +
                                                        R"_(","requests":[{"type":"execute",)_"
                                                        R"_("stmt":{"sql":"COMMIT"}},)_"
                                                        R"_({"type":"close"}]})_");
  EXPECT_EQ(count(committed, "\"ok\""), 2u) << committed;
  EXPECT_NE(cursor(step("SELECT count(*) AS n FROM t")).find("\"value\":\"1\""), std::string::npos);
  EXPECT_EQ(ask("POST", "/db/h/v3/cursor", batch(step("SELECT 1"), baton)).status, 404)
      << "that baton was of the transaction";
}

TEST_F(CursorTest, LargeResultsWaitInAFile) {
  std::string rows =
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 40000) "
      "SELECT i, zeroblob(500) FROM n";
  auto client = send("POST", "/db/h/v3/cursor", batch(step(rows)));
  std::string answer = read(client);
  EXPECT_GT(answer.size(), 20u << 20);
  EXPECT_EQ(count(answer, "{\"type\":\"row\""), 40000u);
  EXPECT_NE(answer.find(R"_([{"type":"integer","value":"40000"})_"), std::string::npos);
  EXPECT_TRUE(answer.ends_with("\"}\n"));
  client.reset();
  // The same through the writer, where the results must wait for the commit.
  cursor(step("CREATE TABLE t(i, b)"));
  answer = cursor(step("INSERT INTO t " + rows + " WHERE true RETURNING i, b"));
  EXPECT_EQ(count(answer, "{\"type\":\"row\""), 40000u);
  expect_files_gone();
}

TEST_F(CursorTest, TooLargeResultsAreAnErrorOfTheirStep) {
  service->options.cursor_bytes_max = 3 << 20;
  cursor(step("CREATE TABLE t(i, b)"));
  std::string rows =
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 40000) "
      "SELECT i, zeroblob(500) FROM n";
  std::string answer = cursor(step("INSERT INTO t " + rows + " WHERE true RETURNING b") + "," +
                              step("SELECT count(*) AS n FROM t"));
  EXPECT_EQ(count(answer, "\"type\":\"step_error\",\"step\":0"), 1u);
  EXPECT_EQ(count(answer, "\"type\":\"error\""), 0u) << "Rust's client cannot read it";
  EXPECT_NE(answer.find("\"code\":\"RESPONSE_TOO_LARGE\""), std::string::npos);
  EXPECT_NE(answer.find(R"_({"type":"row","row":[{"type":"integer","value":"0"}]})_"),
            std::string::npos)
      << "what could not be told did not happen";
  service->options.cursor_bytes_max = 1 << 30;
  service->options.spool_bytes_max = 2 << 20;
  EXPECT_NE(cursor(step(rows)).find("\"code\":\"RESPONSE_TOO_LARGE\""), std::string::npos);
  expect_files_gone();
}

TEST_F(CursorTest, WantRowsAndStoredSql) {
  std::string baton = between(
      post("/db/h/v3/pipeline",
           R"_({"baton":null,"requests":[{"type":"store_sql","sql_id":4,"sql":"SELECT 9"}]})_"),
      "\"baton\":\"", "\"");
  std::string answer =
      cursor(R"_({"stmt":{"sql_id":4}},{"stmt":{"sql":"SELECT 8","want_rows":false}})_", baton);
  EXPECT_EQ(count(answer, "{\"type\":\"row\""), 1u);
  EXPECT_NE(answer.find("\"value\":\"9\""), std::string::npos);
}

TEST_F(CursorTest, WrongOnesAreRefusedAsAWhole) {
  for (const char* body :
       {"", "[]", "{}", R"_({"batch":{}})_", R"_({"batch":{"steps":[{}]}})_",
        R"_({"batch":{"steps":[{"stmt":{"sql":"SELECT 1","replication_index":"x"}}]}})_",
        R"_({"batch":{"steps":[{"stmt":{"sql_id":1}}]}})_",
        R"_({"baton":"x","batch":{"steps":[]}})_"}) {
    std::string answer = post("/db/h/v3/cursor", body, 400);
    EXPECT_NE(answer.find("\"error\":\""), std::string::npos) << body;
  }
  post("/db/none/v3/cursor", batch(step("SELECT 1")), 404);
  EXPECT_EQ(ask("GET", "/db/h/v3/cursor").status, 405);
}

// Entries are read in portions over a WebSocket.
TEST_F(CursorTest, EntriesInPortions) {
  hrana::CursorEntries entries(*service);
  for (int i = 0; i < 1000; ++i) {
    entries.spool()->tail() += "{\"row\":" + std::to_string(i) + "}\n";
    if (i % 100 == 0) entries.spool()->tail() += std::string(30'000, ' ') + "\n";
    ASSERT_TRUE(entries.spool()->take_over());
  }
  std::string all;
  bool done = false;
  int portions = 0;
  while (!done) {
    std::string some;
    ASSERT_TRUE(entries.next(7, 1 << 20, some, done));
    if (!all.empty() && !some.empty()) all += ',';
    all += some;
    ASSERT_LT(++portions, 1000);
  }
  EXPECT_EQ(portions, (1010 + 6) / 7);
  EXPECT_EQ(count(all, "{\"row\":"), 1000u);
  std::string none;
  ASSERT_TRUE(entries.next(7, 1 << 20, none, done));
  EXPECT_TRUE(done && none.empty());
}

TEST_F(CursorTest, SingleRequestsOfHranaOne) {
  post("/db/h/v1/execute", R"_({"stmt":{"sql":"CREATE TABLE t(id INTEGER PRIMARY KEY)"}})_");
  std::string answer =
      post("/db/h/v1/execute", R"_({"stmt":{"sql":"INSERT INTO t VALUES (?) RETURNING id",)_"
                               R"_("args":[{"type":"integer","value":"5"}]}})_");
  EXPECT_TRUE(answer.starts_with(R"_({"result":{"cols":[{"name":"id","decltype":"INTEGER"}],)_"
                                 R"_("rows":[[{"type":"integer","value":"5"}]],)_"
                                 R"_("affected_row_count":1,"last_insert_rowid":"5",)_"))
      << answer;
  answer = post("/db/h/v1/execute", R"_({"stmt":{"sql":"INSERT INTO t VALUES (5)"}})_", 400);
  EXPECT_NE(answer.find("\"message\":\"SQLite error: UNIQUE constraint failed: t.id\""),
            std::string::npos);
  EXPECT_NE(answer.find("\"code\":\"SQLITE_CONSTRAINT\""), std::string::npos) << answer;
  answer = post("/db/h/v1/batch", R"_({"batch":{"steps":[{"stmt":{"sql":"BEGIN"}},)_"
                                  R"_({"stmt":{"sql":"INSERT INTO t VALUES (6)"}},)_"
                                  R"_({"stmt":{"sql":"nonsense"}}]}})_");
  EXPECT_EQ(count(answer, "\"code\":\"SQLITE_ERROR\""), 1u) << answer;
  EXPECT_NE(post("/db/h/v1/execute", R"_({"stmt":{"sql":"SELECT count(*) FROM t"}})_")
                .find("\"value\":\"1\""),
            std::string::npos)
      << "nothing stays open, and what was not committed is gone";
  post("/v1/execute", R"_({"stmt":{"sql":"SELECT 1"}})_");
  post("/db/h/v1/execute", R"_({"stmt":{"sql_id":1}})_", 400);
  post("/db/h/v1/batch", R"_({"stmt":{"sql":"SELECT 1"}})_", 400);
}

TEST_F(CursorTest, VersionsAreProbed) {
  for (const char* target : {"/v2", "/v3", "/db/h/v2", "/db/h/v3/"}) {
    EXPECT_EQ(ask("GET", target).status, 200) << target;
  }
  for (const char* target : {"/v3-protobuf", "/db/h/v3-protobuf", "/db/h/v4"}) {
    EXPECT_GE(ask("GET", target).status, 400) << target << ": JSON is all that is spoken";
  }
}

TEST_F(CursorTest, ReplicationIndexIsTheTxidOfTheBookmark) {
  auto execute = [&](const std::string& sql, const std::string& more = {}, int status = 200) {
    return post("/db/h/v2/pipeline",
                R"_({"requests":[{"type":"execute","stmt":{"sql":")_" + sql + "\"" + more + "}}]}",
                status);
  };
  execute("CREATE TABLE t(id)");
  std::string before = between(execute("SELECT 1"), "\"replication_index\":\"", "\"");
  std::string after =
      between(execute("INSERT INTO t VALUES (1)"), "\"replication_index\":\"", "\"");
  EXPECT_EQ(std::stoull(after), std::stoull(before) + 1);
  // As a string, as a number, in the statement, in the batch.
  execute("SELECT 1", ",\"replication_index\":\"" + after + "\"");
  execute("SELECT 1", ",\"replication_index\":" + after);
  std::string batched =
      post("/db/h/v2/pipeline",
           R"_({"requests":[{"type":"batch","batch":{"replication_index":)_" + after +
               R"_(,"steps":[{"stmt":{"sql":"SELECT 1"}},{"stmt":{"sql":"SELECT 2"}}]}}]})_");
  EXPECT_EQ(count(batched, "\"replication_index\":\"" + after + "\""), 3u) << batched;
  execute("SELECT 1", ",\"replication_index\":\"-1\"", 400);
}

TEST_F(CursorTest, ReadsWaitForAReplicationIndex) {
  auto index = store->position(*database::DatabaseName::parse("h"))->txid.value;
  std::string next = std::to_string(index + 1);
  auto waiting = send("POST", "/db/h/v2/pipeline",
                      R"_({"requests":[{"type":"execute","stmt":{"sql":"SELECT 1",)_"
                      R"_("replication_index":")_" +
                          next + "\"}}]}");
  EXPECT_FALSE(waiting->answered());
  post("/db/h/query", "\"CREATE TABLE t(id)\"");
  EXPECT_NE(waiting->wait().body.find("\"replication_index\":\"" + next + "\""), std::string::npos);
  service->options.request_timeout_ms = 50;
  EXPECT_NE(
      post("/db/h/v3/cursor", R"_({"batch":{"replication_index":"1000000","steps":[]}})_", 503)
          .find("\"code\":\"BEHIND\""),
      std::string::npos);
}

TEST_F(CursorTest, HostLabelsNameDatabasesWhereThatIsWanted) {
  auto ask_host = [&](const std::string& host, const std::string& fields = {}) {
    HttpParser parser(64 << 10);
    std::string body = R"_({"stmt":{"sql":"SELECT 1"}})_";
    std::string text = "POST /v1/execute HTTP/1.1\r\nHost: " + host + "\r\n" + fields +
                       "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    for (std::size_t used = 0; used < text.size();)
      used += parser.feed(std::string_view(text).substr(used));
    parser.request().body = std::move(parser.body());
    auto client = std::make_shared<testing::FakeClient>();
    router->handle(parser.request(), nullptr, Responder(client));
    return client->wait().status;
  };
  EXPECT_EQ(ask_host("none.example.com"), 200) << "off: it is the default database";
  service->options.host_label = true;
  EXPECT_EQ(ask_host("none.example.com"), 404);
  EXPECT_EQ(ask_host("H.example.com:80"), 200);
  EXPECT_EQ(ask_host("none.example.com", "x-namespace: h\r\n"), 200);
  for (const char* host : {"localhost", "localhost:80", "127.0.0.1:80", "[::1]:80"}) {
    EXPECT_EQ(ask_host(host), 200) << host;
  }
}

TEST_F(CursorTest, BrowsersLibsqlClientPassesThePreflight) {
  service->options.allowed_origins = {"https://app.example"};
  Response answer = ask("OPTIONS", "/db/h/v2/pipeline", {},
                        "Origin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n"
                        "Access-Control-Request-Headers: "
                        "authorization,content-type,x-libsql-client-version,x-namespace\r\n");
  EXPECT_EQ(answer.status, 204);
  EXPECT_NE(answer.headers.find("Access-Control-Allow-Origin: https://app.example\r\n"),
            std::string::npos);
  for (const char* field :
       {"authorization", "content-type", "x-libsql-client-version", "x-namespace", "POST"}) {
    EXPECT_NE(answer.headers.find(field), std::string::npos) << field;
  }
  answer =
      ask("POST", "/db/h/v3/cursor", batch(step("SELECT 1")), "Origin: https://app.example\r\n");
  EXPECT_EQ(answer.status, 200);
  EXPECT_NE(answer.headers.find("Access-Control-Allow-Origin: https://app.example\r\n"),
            std::string::npos);
  EXPECT_EQ(
      ask("POST", "/db/h/v3/cursor", batch(step("SELECT 1")), "Origin: https://other.example\r\n")
          .status,
      403);
}

}  // namespace
}  // namespace offprint::server
