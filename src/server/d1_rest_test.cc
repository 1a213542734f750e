// D1's REST interface, as wrangler and the SDKs use it. docs/protocol/d1.md, "REST".
#include <gtest/gtest.h>

#include "base/clock.h"
#include "server/signed_target.h"
#include "server/store_testing.h"

namespace offprint::server {
namespace {

using testing::between;

class D1Rest : public testing::RoutesTest {
 protected:
  static constexpr const char* kRoot = "/client/v4/accounts/a/d1/database";

  Response call(const std::string& method, const std::string& path, const std::string& body = {}) {
    return ask(method, kRoot + path, body);
  }
  // The body of an answer of this status, which must be an envelope.
  std::string get(const std::string& path, int status = 200) { return ok("GET", path, {}, status); }
  std::string ok(const std::string& method, const std::string& path, const std::string& body,
                 int status = 200) {
    Response response = call(method, path, body);
    EXPECT_EQ(response.status, status) << response.body;
    EXPECT_EQ(
        response.body.starts_with(status == 200 ? "{\"success\":true,\"errors\":[]"
                                                : "{\"success\":false,\"errors\":[{\"code\":"),
        true)
        << response.body;
    return response.body;
  }
  static std::string code_of(const std::string& answer) {
    return between(answer, "\"code\":", ",");
  }
  // Makes a database; its UUID.
  std::string make(const std::string& name) {
    return between(ok("POST", "", "{\"name\":\"" + name + "\"}"), "\"uuid\":\"", "\"");
  }
  std::string sql(const std::string& id, const std::string& text, int status = 200) {
    return ok("POST", "/" + id + "/query", "{\"sql\":\"" + text + "\"}", status);
  }
};

TEST_F(D1Rest, ADatabaseFromItsMakingToItsEnd) {
  std::string made = ok("POST", "", R"_({"name":"my-db","primary_location_hint":"weur"})_");
  EXPECT_NE(made.find("\"version\":\"production\""), std::string::npos) << made;
  std::string uuid = between(made, "\"uuid\":\"", "\"");
  ASSERT_EQ(uuid.size(), 36u);
  EXPECT_EQ(uuid[14], '8');
  EXPECT_EQ(uuid[19], '8');
  sql(uuid, "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO t VALUES (1)");
  for (const std::string& id : {uuid, std::string("my-db")}) {
    std::string seen = get("/" + id);
    EXPECT_EQ(between(seen, "\"uuid\":\"", "\""), uuid);
    EXPECT_NE(seen.find("\"num_tables\":1}"), std::string::npos) << seen;
    EXPECT_NE(seen.find("\"read_replication\":{\"mode\":\"auto\"}"), std::string::npos);
  }
  EXPECT_EQ(get("/my-db?fields=uuid,name"),
            R"_({"success":true,"errors":[],"messages":[],"result":{"uuid":")_" + uuid +
                R"_(","name":"my-db"}})_"
                "\n");
  EXPECT_EQ(code_of(ok("POST", "", R"_({"name":"my-db"})_", 409)), "7502");
  close();
  open();
  EXPECT_EQ(between(get("/my-db"), "\"uuid\":\"", "\""), uuid);
  EXPECT_NE(ok("DELETE", "/" + uuid, "").find("\"result\":null"), std::string::npos);
  EXPECT_EQ(code_of(get("/" + uuid, 404)), "7404");
  EXPECT_EQ(code_of(get("/my-db", 404)), "7404");
  EXPECT_NE(make("my-db"), uuid);
}

TEST_F(D1Rest, Pages) {
  EXPECT_NE(get("").find("\"result\":[],\"result_info\":{\"page\":1,\"per_page\":1000,\"count\":0,"
                         "\"total_count\":0}"),
            std::string::npos);
  for (const char* name : {"a1", "a2", "b1", "shop/a3"}) create(name);
  std::string second = get("?page=2&per_page=2");
  EXPECT_EQ(second.find("\"a2\""), std::string::npos);
  EXPECT_NE(second.find("\"name\":\"b1\""), std::string::npos) << second;
  EXPECT_NE(second.find("{\"page\":2,\"per_page\":2,\"count\":2,\"total_count\":4}"),
            std::string::npos)
      << second;
  std::string named = get("?name=a");
  EXPECT_EQ(named.find("\"b1\""), std::string::npos);
  EXPECT_NE(named.find("\"count\":3,\"total_count\":3"), std::string::npos) << named;
  EXPECT_NE(get("?page=9&per_page=2").find("\"result\":[]"), std::string::npos);
  for (const char* bad : {"?page=0", "?page=x", "?per_page=0", "?per_page=10001", "?page=-1",
                          "?page=99999999999999999999"}) {
    EXPECT_EQ(code_of(get(bad, 400)), "7400") << bad;
  }
  EXPECT_NE(get("/shop%2Fa3?fields=name").find("shop/a3"), std::string::npos);
}

TEST_F(D1Rest, Queries) {
  std::string id = make("q");
  std::string made = sql(id, "CREATE TABLE t(v); INSERT INTO t VALUES (1),(2); SELECT v FROM t");
  EXPECT_NE(made.find("\"result\":[{\"results\":[],\"success\":true,\"meta\":{\"served_by\":"),
            std::string::npos)
      << made;
  EXPECT_NE(made.find("\"changes\":2"), std::string::npos);
  EXPECT_NE(made.find("{\"results\":[{\"v\":1},{\"v\":2}],\"success\":true"), std::string::npos)
      << made;
  std::string raw =
      ok("POST", "/q/raw", R"_({"sql":"SELECT v, v FROM t WHERE v=?","params":["2"]})_");
  EXPECT_NE(raw.find(R"_({"results":{"columns":["v","v"],"rows":[]})_"), std::string::npos) << raw;
  raw = ok("POST", "/q/raw", R"_({"sql":"SELECT v, v FROM t WHERE v=?","params":[2]})_");
  EXPECT_NE(raw.find(R"_({"columns":["v","v"],"rows":[[2,2]]})_"), std::string::npos) << raw;
  std::string batch = ok(
      "POST", "/q/query",
      R"_({"batch":[{"sql":"INSERT INTO t VALUES (?)","params":[3]},{"sql":"SELECT count(*) AS n FROM t"}]})_");
  EXPECT_NE(batch.find("{\"results\":[{\"n\":3}]"), std::string::npos) << batch;
  std::string failed = sql(id, "DELETE FROM t; SELECT nope FROM t", 400);
  EXPECT_EQ(
      failed,
      R"_({"success":false,"errors":[{"code":7500,"message":"no such column: nope: SQLITE_ERROR"}],)_"
      R"_("messages":[],"result":[]})_"
      "\n");
  EXPECT_NE(sql(id, "SELECT count(*) AS n FROM t").find("{\"n\":3}"), std::string::npos);
  EXPECT_EQ(code_of(sql(id, "BEGIN", 400)), "7500");
  EXPECT_EQ(code_of(sql(id, "ATTACH 'x' AS y", 400)), "7500");
  for (const char* body : {"", "[]", "{}", "{\"batch\":{}}", "{\"batch\":[1]}", "{\"sql\":1}"})
    EXPECT_EQ(code_of(ok("POST", "/q/query", body, 400)), "7400") << body;
  // Bookmarks by field, as this interface of D1 has none of its own.
  Response read = ask("POST", std::string(kRoot) + "/q/query", R"_({"sql":"SELECT 1"})_",
                      "Offprint-Bookmark: nonsense\r\n");
  EXPECT_EQ(read.status, 400);
  EXPECT_NE(call("POST", "/q/query", R"_({"sql":"SELECT 1"})_").headers.find("Offprint-Bookmark: "),
            std::string::npos);
}

TEST_F(D1Rest, WhatIsRefused) {
  make("r");
  for (const char* body :
       {"", "[]", "{}", "{\"name\":1}", "{\"name\":\"Upper\"}", "{\"name\":\"a b\"}",
        "{\"name\":\"query\"}", "{\"name\":\"x\",\"jurisdiction\":\"eu\"}"}) {
    EXPECT_EQ(code_of(ok("POST", "", body, 400)), "7400") << body;
  }
  EXPECT_EQ(code_of(get("/r/nope", 404)), "7003");
  EXPECT_EQ(code_of(get("/nope", 404)), "7404");
  EXPECT_EQ(code_of(get("/00000000-0000-8000-8000-000000000001", 404)), "7404");
  EXPECT_EQ(code_of(get("/zzzzzzzz-zzzz-8zzz-zzzz-zzzzzzzzzzzz", 404)), "7404");
  EXPECT_EQ(ask("GET", "/client/v4/zones").status, 404);
  EXPECT_EQ(ask("POST", "/client/v4/user").status, 404);
  EXPECT_EQ(call("GET", "/r/query").status, 405);
  EXPECT_EQ(call("DELETE", "").status, 405);
  EXPECT_EQ(call("POST", "/r").status, 405);
  ok("PATCH", "/r", R"_({"read_replication":{"mode":"auto"}})_");
  ok("PUT", "/r", R"_({"read_replication":{"mode":"auto"}})_");
  EXPECT_NE(ok("PATCH", "/r", R"_({"read_replication":{"mode":"disabled"}})_", 400).find("auto"),
            std::string::npos);
}

TEST_F(D1Rest, WhatClientsAskOfAnAccount) {
  for (const char* path : {"/user", "/accounts", "/memberships", "/user/tokens/verify"}) {
    Response response = ask("GET", std::string("/client/v4") + path);
    EXPECT_TRUE(response.body.starts_with("{\"success\":true")) << response.body;
  }
  EXPECT_EQ(
      ask("POST", "/client/v4/graphql", R"_({"query":"{ d1QueriesAdaptiveGroups { count } }"})_")
          .body,
      R"_({"data":{"viewer":{"accounts":[{"d1QueriesAdaptiveGroups":[]}]}},"errors":null})_"
      "\n");
  EXPECT_EQ(ask("POST", "/client/v4/graphql", R"_({"query":"{ zones }"})_").status, 400);
  EXPECT_EQ(ask("GET", "/client/v4/graphql").status, 405);
}

TEST_F(D1Rest, InsightsAreThoseOfTheDatabase) {
  create("seen");
  ASSERT_EQ(ask("POST", "/db/seen/query", R"_({"sql":"CREATE TABLE t(a)"})_").status, 200);
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(ask("POST", "/db/seen/query", R"_({"sql":"INSERT INTO t VALUES(7)"})_").status, 200);
  }
  ASSERT_EQ(ask("POST", "/db/seen/query", R"_({"sql":"SELECT * FROM t"})_").status, 200);
  auto groups = [&](const std::string& query) {
    return ask("POST", "/client/v4/graphql",
               R"_({"query":")_" + query +
                   R"_(","variables":{"filter":{"AND":[{"databaseId":"seen"}]}}})_")
        .body;
  };
  std::string most = groups("d1QueriesAdaptiveGroups(limit: 1, orderBy: [count_DESC])");
  EXPECT_NE(most.find(R"_("count":3,"dimensions":{"query":"INSERT INTO t VALUES(?)"}}]})_"),
            std::string::npos)
      << most;
  std::string totals = groups("d1AnalyticsAdaptiveGroups(limit: 10000)");
  EXPECT_NE(totals.find(R"_({"sum":{"readQueries":1,"writeQueries":4,"rowsRead":)_"),
            std::string::npos)
      << totals;
}

TEST_F(D1Rest, Exports) {
  std::string id = make("e");
  sql(id,
      "CREATE TABLE t(v); CREATE TABLE [o \u00e4&](v); INSERT INTO t VALUES (1); CREATE VIEW w AS "
      "SELECT 1");
  auto link = [&](const std::string& wanted) {
    std::string answer = ok("POST", "/e/export", R"_({"output_format":"polling")_" + wanted + "}");
    EXPECT_NE(answer.find(R"_("type":"export","at_bookmark":")_" +
                          store->info(*database::DatabaseName::parse("e"))->bookmark.text() +
                          "\",\"status\":\"complete\""),
              std::string::npos)
        << answer;
    EXPECT_NE(answer.find("\"filename\":\"e.sql\""), std::string::npos) << answer;
    std::string url = between(answer, "\"signed_url\":\"http://x", "\"");
    EXPECT_FALSE(url.empty()) << answer;
    return url;
  };
  auto download = [&](const std::string& target) {
    auto client = send("GET", target);
    Response response = client->wait();
    EXPECT_EQ(response.status, 200) << response.body;
    return testing::read_all(response, client);
  };
  std::string all = link("");
  std::string script = download(all);
  EXPECT_NE(script.find("INSERT INTO"), std::string::npos) << script;
  EXPECT_NE(script.find("CREATE VIEW w"), std::string::npos) << script;
  EXPECT_EQ(script.find("BEGIN"), std::string::npos) << script;
  EXPECT_EQ(download(link(R"_(,"dump_options":{"no_data":true})_")).find("INSERT"),
            std::string::npos);
  EXPECT_EQ(download(link(R"_(,"dump_options":{"no_schema":true})_")).find("CREATE"),
            std::string::npos);
  std::string one = download(link(R"_(,"dump_options":{"tables":["o \u00e4&"]})_"));
  EXPECT_NE(one.find("CREATE TABLE [o"), std::string::npos) << one;
  EXPECT_EQ(one.find("CREATE TABLE t"), std::string::npos) << one;
  // Nobody can make an address of his own, or use one for ever.
  std::string other = all;
  other.replace(other.find("transaction=0"), 13, "transaction=1");
  EXPECT_EQ(ask("GET", other).status, 403);
  EXPECT_EQ(ask("GET", all.substr(0, all.size() - 1)).status, 403);
  EXPECT_EQ(ask("GET", all.substr(0, all.find("&signature"))).status, 403);
  StreamKey key = streams->derived_key("d1 export");
  EXPECT_TRUE(is_signed_target(key, all, unix_time_ms()));
  EXPECT_FALSE(is_signed_target(key, all, unix_time_ms() + 3'700'000));
  EXPECT_FALSE(is_signed_target(streams->derived_key("d1 import"), all, unix_time_ms()));
  ok("DELETE", "/e", "");
  EXPECT_EQ(ask("GET", all).status, 404);
  make("e");
  for (const char* body :
       {"", "[]", "{}", "{\"output_format\":\"file\"}",
        "{\"output_format\":\"polling\",\"dump_options\":1}",
        "{\"output_format\":\"polling\",\"dump_options\":{\"tables\":[1]}}",
        "{\"output_format\":\"polling\",\"dump_options\":{\"no_data\":true,\"no_schema\":true}}"}) {
    EXPECT_EQ(code_of(ok("POST", "/e/export", body, 400)), "7400") << body;
  }
}

TEST_F(D1Rest, TimeTravelGoesBack) {
  std::string id = make("t");
  sql(id, "CREATE TABLE t(v)");
  std::string now = between(get("/t/time_travel/bookmark"), "\"bookmark\":\"", "\"");
  EXPECT_EQ(now, store->info(*database::DatabaseName::parse("t"))->bookmark.text());
  std::string at = "/t/time_travel/bookmark?timestamp=";
  EXPECT_NE(get(at + format_rfc3339(unix_time_ms() + 1000)).find(now), std::string::npos);
  EXPECT_NE(get(at + format_rfc3339(unix_time_ms() - 1'000'000), 400).find("no content"),
            std::string::npos);
  EXPECT_EQ(code_of(get(at + "yesterday", 400)), "7400");
  std::string restored = ok("POST", "/t/time_travel/restore?bookmark=" + now, "");
  EXPECT_NE(restored.find("\"previous_bookmark\":\"" + now), std::string::npos) << restored;
  EXPECT_EQ(get("/t/time_travel/bookmark").find(now) != std::string::npos, true);  // unchanged
  sql(id, "INSERT INTO t VALUES (1)");
  std::string later = between(get("/t/time_travel/bookmark"), "\"bookmark\":\"", "\"");
  restored = ok("POST", "/t/time_travel/restore?bookmark=" + now, "");
  EXPECT_NE(restored.find("\"previous_bookmark\":\"" + later), std::string::npos) << restored;
  EXPECT_NE(sql(id, "SELECT count(*) AS n FROM t").find("\"n\":0"), std::string::npos);
  ok("POST", "/t/time_travel/restore?bookmark=" + later, "");
  EXPECT_NE(sql(id, "SELECT count(*) AS n FROM t").find("\"n\":1"), std::string::npos);
  std::string other = later;
  other.back() = other.back() == '0' ? '1' : '0';
  EXPECT_NE(
      ok("POST", "/t/time_travel/restore?bookmark=" + other, "", 400).find("HISTORY_UNAVAILABLE"),
      std::string::npos);
  EXPECT_EQ(code_of(ok("POST", "/t/time_travel/restore?bookmark=x", "", 400)), "7400");
  EXPECT_EQ(code_of(ok("POST", "/t/time_travel/restore", "", 400)), "7400");
  EXPECT_EQ(call("POST", "/t/time_travel/bookmark").status, 405);
}

}  // namespace
}  // namespace offprint::server
