// Everything but Hrana and streams: addresses, /query, the management interface, files.
#include <thread>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "server/query.h"
#include "server/store_testing.h"

namespace offprint::server {
namespace {

using testing::between;

class Routes : public testing::RoutesTest {
 protected:
  std::string query(const std::string& body, int status = 200) {
    return post("/db/q/query", body, status);
  }
  // Without the bookmark, which differs from run to run.
  static std::string results(const std::string& answer) {
    return between(answer, "{\"results\":", ",\"bookmark\"");
  }
};

TEST(AddressTest, TakesTargetsApart) {
  auto address = parse_address("/db/shop/orders/v2/pipeline/?a=b%20c&d&e=f+g");
  ASSERT_TRUE(address);
  EXPECT_EQ(address->path_from(1), "shop/orders/v2/pipeline");
  EXPECT_EQ(address->parameter("a"), "b c");
  EXPECT_EQ(address->parameter("d"), "");
  EXPECT_EQ(address->parameter("e"), "f g");
  EXPECT_FALSE(address->parameter("x"));
  auto target = parse_database_address(*address);
  ASSERT_TRUE(target);
  EXPECT_EQ(target->name.text(), "shop/orders");
  EXPECT_EQ(target->action, "v2/pipeline");
  auto one = parse_database_address(*parse_address("/db/orders/query"));
  EXPECT_EQ(one->name.text(), "orders");
  EXPECT_EQ(one->action, "query");
  EXPECT_EQ(parse_database_address(*parse_address("/db/orders/"))->action, "");
  EXPECT_EQ(parse_database_address(*parse_address("/db/a/b/"))->name.text(), "a/b");
  for (const char* target_text : {"/%", "/%2", "/%zz", "/%00", "/a?b=%4"})
    EXPECT_FALSE(parse_address(target_text));
  EXPECT_FALSE(parse_address("/" + std::string(100, '/') + "a/b"));
  for (const char* path : {"/db", "/db/Upper", "/db/..%2f..%2fetc", "/db/query", "/db/a/B"}) {
    auto parsed = parse_address(path);
    EXPECT_TRUE(!parsed || !parse_database_address(*parsed)) << path;
  }
}

TEST_F(Routes, QueryOfOneStatement) {
  create("q");
  EXPECT_EQ(results(query(R"_({"sql":"CREATE TABLE t(id INTEGER PRIMARY KEY, v)"})_")),
            R"_([{"columns":[],"rows":[],"changes":0,"last_insert_rowid":0}])_");
  EXPECT_EQ(results(query(R"_({"sql":"INSERT INTO t(v) VALUES (?),(?),(?),(?),(?),(?)",)_"
                          R"_("args":[1,1.0,"x",null,true,{"base64":"AP8="}]})_")),
            R"_([{"columns":[],"rows":[],"changes":6,"last_insert_rowid":6}])_");
  std::string rows = query(R"_({"sql":"SELECT v, id AS v FROM t ORDER BY id"})_");
  EXPECT_NE(
      rows.find(
          R"_({"columns":["v","v"],"rows":[[1,1],[1.0,2],["x",3],[null,4],[1,5],[{"base64":"AP8="},6]],"changes":0)_"),
      std::string::npos)
      << rows;
  EXPECT_NE(query(R"_({"sql":"SELECT :a, @b","args":{"a":9223372036854775807,"b":1e999}})_", 400)
                .find("\"error\""),
            std::string::npos);
  EXPECT_NE(query(R"_({"sql":"SELECT :a, @b","args":{"a":9223372036854775807,"@b":-0.5}})_")
                .find("[9223372036854775807,-0.5]"),
            std::string::npos);
  EXPECT_NE(query(R"_({"sql":"SELECT 9e999, -9e999, 1e20"})_").find("[null,null,1e+20]"),
            std::string::npos);
}

TEST_F(Routes, QueryOfAnArrayIsAllOrNothing) {
  create("q");
  query(R"_(["CREATE TABLE t(id INTEGER PRIMARY KEY)",{"sql":"INSERT INTO t VALUES (1)"}])_");
  std::string failed = query(R"_(["INSERT INTO t VALUES (2)","INSERT INTO t VALUES (1)"])_", 400);
  EXPECT_EQ(failed,
            "{\"error\":{\"code\":\"SQLITE_CONSTRAINT\",\"extended_code\":\"SQLITE_CONSTRAINT_"
            "PRIMARYKEY\","
            "\"message\":\"UNIQUE constraint failed: t.id\"}}\n");
  query(R"_(["INSERT INTO t VALUES (3)","INSERT OR ROLLBACK INTO t VALUES (1)"])_", 400);
  query(R"_(["INSERT INTO t VALUES (4)","COMMIT","INSERT INTO t VALUES (1)"])_", 400);
  query(R"_(["INSERT INTO t VALUES (5)"," /* x */ end"])_", 400);
  query(R"_(["INSERT INTO t VALUES (6)","ROLLBACK"])_", 400);
  EXPECT_NE(query(R"_({"sql":"SELECT group_concat(id) FROM t"})_").find("[[\"1\"]]"),
            std::string::npos);
  query(
      R"_(["SAVEPOINT a","INSERT INTO t VALUES (7)","ROLLBACK TRANSACTION TO a","INSERT INTO t VALUES (8)"])_");
  EXPECT_NE(query(R"_(["SELECT group_concat(id) FROM t","SELECT 1"])_").find("[[\"1,8\"]]"),
            std::string::npos);
  EXPECT_EQ(results(query("[]")), "[]");
}

TEST_F(Routes, DeferredForeignKeysAreCheckedAtTheEndOfAnArray) {
  create("q");
  query(R"_(["CREATE TABLE p(id INTEGER PRIMARY KEY)",)_"
        R"_("CREATE TABLE c(p REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)"])_");
  EXPECT_NE(query(R"_(["INSERT INTO c VALUES (1)"])_", 400).find("SQLITE_CONSTRAINT_FOREIGNKEY"),
            std::string::npos);
  query(R"_(["INSERT INTO c VALUES (1)","INSERT INTO p VALUES (1)"])_");
  EXPECT_NE(query(R"_({"sql":"SELECT count(*) FROM c"})_").find("[[1]]"), std::string::npos);
}

TEST_F(Routes, QueryRefusals) {
  create("q");
  for (const char* body :
       {"", "{}", "{\"sql\":1}", "{\"sql\":\"SELECT 1\",\"args\":7}", "\"\\ud800\"", "[1]",
        "nonsense", "{\"sql\":\"SELECT ?\",\"args\":[[1]]}",
        "{\"sql\":\"SELECT ?\",\"args\":[{\"base64\":\"*\"}]}"}) {
    std::string answer = query(body, 400);
    EXPECT_TRUE(answer.starts_with("{\"error\":{\"code\":\"")) << answer;
  }
  EXPECT_EQ(ask("GET", "/db/q/query").status, 405);
  EXPECT_EQ(ask("POST", "/db/nope/query", R"_({"sql":"SELECT 1"})_").status, 404);
  Response nameless = ask("POST", "/db/v2/pipeline", R"_({"requests":[]})_");
  EXPECT_EQ(nameless.status, 404);
  EXPECT_NE(nameless.body.find("/db/NAME/"), std::string::npos);
  EXPECT_EQ(ask("POST", "/db/q/query", R"_({"sql":"SELECT 1"})_", "Offprint-Read: bad\r\n").status,
            400);
}

TEST_F(Routes, Management) {
  Response created = ask("POST", "/v1/databases", R"_({"name":"shop/orders","page_size":8192})_");
  EXPECT_EQ(created.status, 201);
  EXPECT_NE(created.body.find("\"name\":\"shop/orders\""), std::string::npos);
  EXPECT_EQ(ask("POST", "/v1/databases", R"_({"name":"shop/orders"})_").status, 409);
  for (const char* body : {R"_({"name":"Bad"})_", "{}", R"_({"name":"a","page_size":1000})_",
                           R"_({"name":"a","encoding":"x"})_", R"_({"name":"query"})_",
                           R"_({"name":"a","auto_vacuum":3})_"}) {
    EXPECT_EQ(ask("POST", "/v1/databases", body).status, 400) << body;
  }
  create("b");
  create("c");
  std::string all = ask("GET", "/v1/databases").body;
  EXPECT_LT(all.find("\"name\":\"b\""), all.find("\"name\":\"shop/orders\""));
  std::string page = ask("GET", "/v1/databases?limit=1&after=b").body;
  EXPECT_EQ(page.find("\"name\":\"b\""), std::string::npos);
  EXPECT_NE(page.find("\"next\":\"c\""), std::string::npos);
  EXPECT_EQ(ask("GET", "/v1/databases?limit=0").status, 400);
  for (const char* path :
       {"/v1/databases/shop/orders", "/v1/databases/shop%2Forders", "/db/shop/orders/"}) {
    Response info = ask("GET", path);
    EXPECT_EQ(info.status, 200);
    for (const char* field :
         {"\"name\":\"shop/orders\"", "\"lineage\":\"", "\"bookmark\":\"", "\"page_size\":8192",
          "\"page_count\":", "\"size_bytes\":", "\"created_at\":\"20", "\"primary\":\"local\"",
          "\"open\":", "\"readers\":0"}) {
      EXPECT_NE(info.body.find(field), std::string::npos) << field;
    }
  }
  EXPECT_EQ(ask("DELETE", "/v1/databases/shop%2Forders").status, 204);
  EXPECT_EQ(ask("DELETE", "/v1/databases/shop%2Forders").status, 404);
  EXPECT_EQ(ask("GET", "/v1/databases/shop/orders").status, 404);
  EXPECT_EQ(ask("PUT", "/v1/databases/b").status, 405);
}

TEST_F(Routes, RootGoesToTheNamedOrTheDefaultDatabase) {
  EXPECT_NE(post("/query", R"_({"sql":"CREATE TABLE t(id)"})_").find("\"bookmark\""),
            std::string::npos);
  EXPECT_NE(post("/db/default/query", R"_({"sql":"SELECT count(*) FROM t"})_").find("[[0]]"),
            std::string::npos);
  const char* one =
      R"_({"requests":[{"type":"execute","stmt":{"sql":"SELECT count(*) FROM t"}}]})_";
  EXPECT_NE(post("/v2/pipeline", one).find("\"type\":\"ok\""), std::string::npos);
  EXPECT_NE(post("/v3/pipeline", one).find("\"type\":\"ok\""), std::string::npos);
  post("/v2/pipeline", one, 404, "x-namespace: other\r\n");
  create("other");
  EXPECT_NE(post("/v2/pipeline", one, 200, "x-namespace: other\r\n").find("no such table"),
            std::string::npos);
}

TEST_F(Routes, SmallPages) {
  EXPECT_EQ(ask("GET", "/health").body, "{\"status\":\"ok\"}\n");
  EXPECT_EQ(ask("GET", "/health?ready=1").status, 200);
  EXPECT_NE(ask("GET", "/version").body.find("\"pid\":" + std::to_string(::getpid())),
            std::string::npos);
  EXPECT_NE(ask("GET", "/").body.find("<h1>Offprint</h1>"), std::string::npos);
  create("m");
  std::string metrics = ask("GET", "/metrics").body;
  EXPECT_NE(metrics.find("\n# TYPE offprint_databases gauge\noffprint_databases 1\n"),
            std::string::npos)
      << metrics;
  for (const char* target : {"/nothing", "/db/m/nothing", "/v1/nothing", "/db/m/v2/nothing"}) {
    EXPECT_EQ(ask("GET", target).status, target == std::string("/db/m/nothing") ? 404 : 404)
        << target;
  }
  EXPECT_EQ(ask("GET", "/db/m/v2").status, 200);
}

TEST_F(Routes, PagesOfOtherOriginsAreRefusedUnlessAllowed) {
  create("q");
  const char* body = R"_({"sql":"SELECT 1"})_";
  EXPECT_EQ(ask("POST", "/db/q/query", body, "Origin: http://evil.example\r\n").status, 403);
  EXPECT_EQ(ask("POST", "/db/q/query", body, "Origin: null\r\n").status, 403);
  EXPECT_EQ(ask("POST", "/db/q/query", body, "Origin: http://x\r\n").status,
            200);  // its own (Host: x)
  service->options.allowed_origins = {"https://app.example"};
  Response allowed = ask("POST", "/db/q/query", body, "Origin: https://app.example\r\n");
  EXPECT_EQ(allowed.status, 200);
  EXPECT_NE(allowed.headers.find("Access-Control-Allow-Origin: https://app.example\r\n"),
            std::string::npos);
  Response preflight =
      ask("OPTIONS", "/db/q/v2/pipeline", {},
          "Origin: https://app.example\r\nAccess-Control-Request-Headers: content-type,x-y\r\n");
  EXPECT_EQ(preflight.status, 204);
  EXPECT_NE(preflight.headers.find("Access-Control-Allow-Headers: content-type,x-y\r\n"),
            std::string::npos);
}

TEST_F(Routes, SnapshotAndImport) {
  create("q");
  query(
      R"_(["CREATE TABLE t(id INTEGER PRIMARY KEY, v)",)_"
      R"_("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000) INSERT INTO t SELECT i, hex(randomblob(200)) FROM n"])_");
  auto client = send("GET", "/db/q/snapshot");
  Response snapshot = client->wait();
  ASSERT_EQ(snapshot.status, 200);
  ASSERT_TRUE(snapshot.stream);
  std::string file;
  snapshot.stream->start(client);
  for (;;) {
    auto state = snapshot.stream->fill(file);
    if (state == BodyStream::State::kEnd) break;
    ASSERT_NE(state, BodyStream::State::kFailed);
    if (state == BodyStream::State::kWait) client->wait_for_wake();
  }
  EXPECT_EQ(file.size(), snapshot.stream_length);
  EXPECT_GT(file.size(), 1u << 20);
  EXPECT_TRUE(file.starts_with("SQLite format 3"));

  EXPECT_NE(post("/db/copy/import", file).find("\"bookmark\""), std::string::npos);
  const char* sum = R"_({"sql":"SELECT count(*), sum(length(v)), max(v) FROM t"})_";
  EXPECT_EQ(results(post("/db/copy/query", sum)), results(post("/db/q/query", sum)));
  post("/db/q/import", file, 409);
  post("/db/other/import", "this is no database", 400);
  EXPECT_EQ(ask("GET", "/v1/databases/other").status, 404);  // nothing is left of it
  post("/db/other2/import", "", 400);
  post("/db/other3/import/", file);
  post("/db/other4/%69mport", file, 404);
  // The helpers drop the uploads just after they answered.
  auto uploads = [&] {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      count += entry.path().filename().string().starts_with("upload-");
    }
    return count;
  };
  Deadline deadline = SteadyClock::now() + std::chrono::seconds(20);
  while (uploads() > 0 && SteadyClock::now() < deadline) std::this_thread::yield();
  EXPECT_EQ(uploads(), 0);
}

TEST_F(Routes, DumpIsAScriptOfOneState) {
  create("q");
  query(R"_(["CREATE TABLE t(id INTEGER PRIMARY KEY, v)","CREATE TABLE u(v)",)_"
        R"_("INSERT INTO t(v) VALUES ('a')"])_");
  auto client = send("GET", "/db/q/dump");
  Response response = client->wait();
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.content_type, "application/sql");
  EXPECT_NE(response.headers.find("Offprint-Bookmark: "), std::string::npos);
  EXPECT_EQ(read_all(response, client),
            "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nPRAGMA defer_foreign_keys=ON;\n"
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v);\nCREATE TABLE u(v);\n"
            "INSERT INTO \"t\"(\"id\",\"v\") VALUES(1,'a');\nCOMMIT;\n");
  client = send("GET", "/db/q/dump?data=0&transaction=0&table=u");
  response = client->wait();
  EXPECT_EQ(read_all(response, client), "PRAGMA defer_foreign_keys=ON;\nCREATE TABLE u(v);\n");
  EXPECT_EQ(ask("GET", "/db/q/dump?data=2").status, 400);
  EXPECT_EQ(ask("GET", "/db/q/dump?table=x").status, 404);
  EXPECT_EQ(ask("GET", "/db/none/dump").status, 404);
  EXPECT_EQ(ask("DELETE", "/db/q/dump").status, 405);
}

TEST_F(Routes, ScriptsAreImportedAsJobs) {
  std::string done =
      post("/db/q/import?format=sql", "CREATE TABLE t(v); INSERT INTO t VALUES (1);");
  EXPECT_EQ(between(done, "\"state\":\"", "\""), "done");
  EXPECT_NE(done.find("\"statements\":2,\"rows\":1"), std::string::npos) << done;
  EXPECT_NE(post("/db/q/import?format=sql", "INSERT INTO u VALUES (1);", 400)
                .find("line 1: no such table: u, in: INSERT INTO u VALUES (1);"),
            std::string::npos);
  EXPECT_EQ(ask("POST", "/db/q/import?format=xls", "x").status, 400);
  std::string id =
      between(post("/db/q/import?format=sql&async=1", "INSERT INTO t VALUES (2);", 202),
              "\"job\":\"", "\"");
  auto late = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  std::string state;
  do {
    state = between(ask("GET", "/v1/jobs/" + id).body, "\"state\":\"", "\"");
  } while (state != "done" && std::chrono::steady_clock::now() < late);
  EXPECT_EQ(state, "done");
  EXPECT_NE(ask("GET", "/v1/jobs").body.find(id), std::string::npos);
  EXPECT_EQ(ask("GET", "/v1/jobs/" + std::string(32, '0')).status, 404);
  EXPECT_EQ(ask("DELETE", "/v1/jobs/" + std::string(32, '0')).status, 404);
  EXPECT_EQ(ask("POST", "/v1/jobs").status, 405);
  EXPECT_NE(query(R"_({"sql":"SELECT count(*) FROM t"})_").find("[[2]]"), std::string::npos);
  // A long one.
  id = between(post(
                   "/db/q/import?format=sql&async=1",
                   "CREATE TABLE x AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
                   "FROM n LIMIT 100) SELECT i FROM n;" +
                       [] {
                         std::string more;
                         for (int i = 0; i < 100'000; ++i) more += "INSERT INTO t VALUES (3);\n";
                         return more;
                       }(),
                   202),
               "\"job\":\"", "\"");
  EXPECT_EQ(ask("DELETE", "/v1/jobs/" + id).status, 202);
  do {
    state = between(ask("GET", "/v1/jobs/" + id).body, "\"state\":\"", "\"");
  } while ((state == "waiting" || state == "running") && std::chrono::steady_clock::now() < late);
  EXPECT_EQ(state, "cancelled");
  EXPECT_NE(query(R"_({"sql":"SELECT count(*) FROM t"})_").find("[[2]]"), std::string::npos);
}

TEST_F(Routes, LimitsAreKeptAndEnforced) {
  create("q");
  query(R"_(["CREATE TABLE t(v)","INSERT INTO t VALUES (1),(2),(3)"])_");
  auto patch = [&](const std::string& limits, int status = 200) {
    Response response = ask("PATCH", "/v1/databases/q", "{\"limits\":" + limits + "}");
    EXPECT_EQ(response.status, status) << response.body;
    return response.body;
  };
  EXPECT_NE(patch(R"_({"rows_max":2})_").find("\"limits\":{\"size_bytes_max\":0"),
            std::string::npos);
  EXPECT_NE(query(R"_({"sql":"SELECT v FROM t"})_", 413).find("ROWS_LIMIT"), std::string::npos);
  query(R"_({"sql":"SELECT v FROM t LIMIT 2"})_");
  patch(R"_({"rows_max":null,"size_bytes_max":40960,"statement_ms_max":20})_");
  EXPECT_NE(
      query(R"_({"sql":"INSERT INTO t VALUES (zeroblob(100000))"})_", 507).find("SQLITE_FULL"),
      std::string::npos);
  query(R"_({"sql":"INSERT INTO t VALUES (4)"})_");
  const char* endless =
      R"_({"sql":"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"})_";
  query(endless, 503);
  close();
  open();  // they stand in the catalog
  query(R"_({"sql":"INSERT INTO t VALUES (zeroblob(100000))"})_", 507);
  patch(R"_({"writes_blocked":true,"block_reason":"unpaid"})_");
  EXPECT_NE(query(R"_({"sql":"INSERT INTO t VALUES (5)"})_", 403)
                .find("\"code\":\"DATABASE_BLOCKED\",\"extended_code\":\"DATABASE_BLOCKED\","
                      "\"message\":\"this database can be only read now: unpaid\""),
            std::string::npos);
  EXPECT_NE(query(R"_({"sql":"SELECT count(*) FROM t"})_").find("[[4]]"), std::string::npos);
  patch(R"_({"reads_blocked":true})_");
  query(R"_({"sql":"SELECT count(*) FROM t"})_", 403);
  EXPECT_EQ(ask("GET", "/db/q/dump").status, 403);
  EXPECT_EQ(ask("GET", "/db/q/snapshot").status, 403);
  patch(R"_({"reads_blocked":false,"writes_blocked":false,"size_bytes_max":0})_");
  query(R"_({"sql":"INSERT INTO t VALUES (zeroblob(100000))"})_");
  for (const char* bad : {"1", R"_({"rows":1})_", R"_({"rows_max":-1})_", R"_({"rows_max":"1"})_",
                          R"_({"writes_blocked":1})_", R"_({"statement_ms_max":86400001})_"})
    patch(bad, 400);
  EXPECT_EQ(ask("PATCH", "/v1/databases/none", "{}").status, 404);
}

TEST_F(Routes, DatabasesBeginWithASchemaOrACopy) {
  post("/v1/databases",
       R"_({"name":"q","page_size":8192,"foreign_keys":false,"limits":{"rows_max":7},)_"
       R"_("schema":"CREATE TABLE t(v); CREATE INDEX i ON t(v); INSERT INTO t VALUES (1);"})_",
       201);
  std::string copied = post("/v1/databases", R"_({"name":"copy","copy_of":"q"})_", 201);
  EXPECT_NE(copied.find("\"page_size\":8192"), std::string::npos) << copied;
  EXPECT_NE(copied.find("\"foreign_keys\":false"), std::string::npos) << copied;
  EXPECT_EQ(copied.find("limits"), std::string::npos) << copied;
  EXPECT_NE(post("/db/copy/query", R"_({"sql":"SELECT v FROM t"})_").find("[[1]]"),
            std::string::npos);
  EXPECT_NE(ask("GET", "/v1/databases/q").body.find("\"rows_max\":7"), std::string::npos);
  post("/v1/databases", R"_({"name":"copy","copy_of":"q"})_", 409);
  post("/v1/databases", R"_({"name":"bad","schema":"CREATE TABLE"})_", 400);
  post("/v1/databases", R"_({"name":"bad","copy_of":"none"})_", 404);
  post("/v1/databases", R"_({"name":"bad","copy_of":"q","schema":"SELECT 1"})_", 400);
  EXPECT_EQ(ask("GET", "/v1/databases/bad").status, 404);
  EXPECT_NE(ask("GET", "/v1/databases?contains=op").body.find("{\"databases\":[{\"name\":\"copy\""),
            std::string::npos);
  EXPECT_EQ(ask("GET", "/v1/databases?contains=op").body.find("\"name\":\"q\""), std::string::npos);
}

TEST_F(Routes, UsageIsToldByMonthsAndByDatabases) {
  create("q");
  create("shop/q");
  query(R"_(["CREATE TABLE t(v)","INSERT INTO t VALUES (1),(2)"])_");
  post("/db/shop/q/query", R"_({"sql":"SELECT 1"})_");
  std::string month = database::month_of(unix_time_ms());
  std::string of_q = R"_("queries":2,"rows_read":0,"rows_written":2,"size_bytes":8192,)_";
  for (const std::string& path : {std::string("/v1/usage"), "/v1/usage?month=" + month}) {
    std::string all = ask("GET", path).body;
    EXPECT_EQ(between(all, "{\"month\":\"", "\""), month);
    EXPECT_NE(all.find(R"_("databases":[{"name":"q","number":1,)_" + of_q), std::string::npos)
        << all;
    EXPECT_LT(all.find("\"name\":\"q\""), all.find("\"name\":\"shop/q\"")) << all;
  }
  std::string page = ask("GET", "/v1/usage?limit=1").body;
  EXPECT_EQ(between(page, "\"next\":\"", "\""), "q:1");
  std::string rest = ask("GET", "/v1/usage?after=q:1").body;
  EXPECT_EQ(rest.find("\"name\":\"q\""), std::string::npos) << rest;
  EXPECT_EQ(ask("GET", "/v1/usage?prefix=shop/&after=q").body.find("next"), std::string::npos);
  EXPECT_NE(ask("GET", "/v1/databases/q/usage")
                .body.find("{\"name\":\"q\",\"months\":[{\"month\":\"" + month + "\"," + of_q),
            std::string::npos);
  EXPECT_NE(ask("GET", "/v1/databases/shop%2Fq/usage").body.find("\"queries\":1"),
            std::string::npos);
  EXPECT_EQ(ask("DELETE", "/v1/databases/q").status, 204);
  EXPECT_NE(ask("GET", "/v1/usage").body.find("\"dropped\":true"), std::string::npos);
  EXPECT_EQ(ask("GET", "/v1/usage?month=2000-01").body,
            "{\"month\":\"2000-01\",\"databases\":[]}\n");
  for (const char* bad : {"month=2026-13", "limit=0", "limit=10001", "after=q:x"})
    EXPECT_EQ(ask("GET", std::string("/v1/usage?") + bad).status, 400) << bad;
  EXPECT_EQ(ask("GET", "/v1/databases/none/usage").status, 404);
  EXPECT_EQ(ask("DELETE", "/v1/databases/shop/q/usage").status, 405);
}

TEST_F(Routes, SlowStatementsAreListedAndCounted) {
  options.slow_ms = 1;
  close();
  open();
  create("q");
  query(
      R"_({"sql":"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT max(i) FROM n"})_");
  std::string slow = ask("GET", "/v1/databases/q/slow?limit=1").body;
  EXPECT_EQ(slow.find("{\"statements\":[{\"at\":\"20"), 0u) << slow;
  for (const char* field : {"\"sql\":\"WITH RECURSIVE", "\"time_us\":", "\"rows_read\":",
                            "\"rows_written\":0,", "\"failed\":false}"})
    EXPECT_NE(slow.find(field), std::string::npos) << slow;
  EXPECT_EQ(ask("GET", "/v1/databases/q/slow?limit=0").status, 400);
  EXPECT_EQ(ask("GET", "/v1/databases/none/slow").status, 404);
  std::string metrics = ask("GET", "/metrics").body;
  for (const char* line :
       {"\noffprint_statements_total 1\n", "\n# TYPE offprint_statement_seconds histogram\n",
        "\noffprint_statement_seconds_bucket{le=\"0.0001\"} 0\n",
        "\noffprint_statement_seconds_bucket{le=\"+Inf\"} 1\n",
        "\noffprint_statement_seconds_sum 0.", "\noffprint_statement_seconds_count 1\n",
        "\noffprint_rows_read_total ", "\noffprint_rows_written_total 0\n",
        "\noffprint_slow_statements_total 1\n"})
    EXPECT_NE(metrics.find(line), std::string::npos) << line << metrics;
}

TEST_F(Routes, InsightsTellWhatStatementsCost) {
  post("/v1/databases", R"_({"name":"shop/q"})_", 201);
  post("/db/shop/q/query",
       R"_(["CREATE TABLE t(v)","INSERT INTO t VALUES (1)","INSERT INTO t VALUES ('x')"])_");
  for (const char* path :
       {"/v1/databases/shop/q/insights", "/v1/databases/shop%2Fq/insights?since=60"}) {
    std::string body = ask("GET", path).body;
    EXPECT_NE(body.find(R"_({"sql":"INSERT INTO t VALUES (?)","count":2,"errors":0,"rows_read":0,)_"
                        R"_("rows_written":2,"time_us":)_"),
              std::string::npos)
        << body;
  }
  EXPECT_EQ(ask("GET", "/v1/databases/shop/q/insights?limit=0").status, 400);
  EXPECT_EQ(ask("GET", "/v1/databases/shop/q/insights?since=x").status, 400);
  EXPECT_EQ(ask("GET", "/v1/databases/none/insights").status, 404);
}

}  // namespace
}  // namespace offprint::server
