// /v1/databases/NAME/history, and Offprint-At.
#include <gmock/gmock.h>

#include "base/clock.h"
#include "server/store_testing.h"

namespace offprint::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class HistoryRoutes : public testing::RoutesTest {
 protected:
  std::string sql(const std::string& name, const std::string& text, int status = 200) {
    return post("/db/" + name + "/query", R"({"sql":")" + text + "\"}", status);
  }
  std::string get(const std::string& target, int status = 200) {
    Response response = ask("GET", target);
    EXPECT_EQ(response.status, status) << response.body;
    return response.body;
  }
  std::string now(const std::string& name) {
    return store->info(*database::DatabaseName::parse(name))->bookmark.text();
  }
  std::string sql_at(const std::string& at, const std::string& text, int status = 200) {
    return post("/db/shop/orders/query", R"({"sql":")" + text + "\"}", status,
                "Offprint-At: " + at + "\r\n");
  }
};

TEST_F(HistoryRoutes, RestoresForksAndReadsWhatWas) {
  create("shop/orders");
  sql("shop/orders", "CREATE TABLE t(a)");
  sql("shop/orders", "INSERT INTO t VALUES (1)");
  const std::string then = now("shop/orders");
  sql("shop/orders", "INSERT INTO t VALUES (2)");
  const std::string later = now("shop/orders");
  EXPECT_THAT(sql_at(then, "SELECT count(*) FROM t"), HasSubstr("[[1]]"));
  EXPECT_THAT(sql_at(then, "SELECT 1"), HasSubstr("\"bookmark\":\"" + then));
  EXPECT_THAT(sql_at(format_rfc3339(unix_time_ms()), "SELECT count(*) FROM t"), HasSubstr("[[2]]"));
  EXPECT_THAT(sql_at(then, "INSERT INTO t VALUES (3)", 400), HasSubstr("EARLIER_STATE"));
  for (const char* text : {"/dump", "/export?format=csv&table=t"}) {
    Response refused =
        ask("GET", std::string("/db/shop/orders") + text, "", "Offprint-At: " + then + "\r\n");
    EXPECT_EQ(refused.status, 400) << text;
  }
  EXPECT_THAT(sql_at("noon", "SELECT 1", 400), HasSubstr("is no moment"));
  EXPECT_THAT(sql_at("2001-01-01T00:00:00Z", "SELECT 1", 404), HasSubstr("no content"));

  const std::string base = "/v1/databases/shop/orders/history";
  EXPECT_THAT(post(base + "/fork", R"({"name":"shop/old","at":")" + then + "\"}", 201),
              HasSubstr("\"forked_from\":\"" + then));
  EXPECT_THAT(sql("shop/old", "SELECT count(*) FROM t"), HasSubstr("[[1]]"));
  post(base + "/fork", R"({"name":"shop/old"})", 409);
  EXPECT_THAT(post(base + "/restore", R"({"at":")" + then + "\"}"),
              HasSubstr("\"previous_bookmark\":\"" + later));
  EXPECT_THAT(sql("shop/orders", "SELECT count(*) FROM t"), HasSubstr("[[1]]"));
  post(base + "/restore", R"({"at":")" + later + R"(","to":"shop/new"})");
  EXPECT_THAT(sql("shop/new", "SELECT count(*) FROM t"), HasSubstr("[[2]]"));

  std::string list = get(base + "?details=1&limit=2");
  EXPECT_THAT(list, HasSubstr("\"txid\":4"));
  EXPECT_THAT(list, HasSubstr("\"tables\":[\"t\"]"));
  EXPECT_THAT(list, HasSubstr("\"next\":3"));
  list = get(base + "?before=3");
  EXPECT_THAT(list, HasSubstr(then));
  EXPECT_THAT(list, Not(HasSubstr("\"txid\":3")));
  EXPECT_THAT(list, Not(HasSubstr("next")));
}

TEST_F(HistoryRoutes, TagsAreKeptUntilTheyAreDropped) {
  create("shop/orders");
  sql("shop/orders", "CREATE TABLE t(a)");
  const std::string base = "/v1/databases/shop/orders/history/tags";
  EXPECT_THAT(post(base, R"({"tag":"v1.0"})", 201), HasSubstr(now("shop/orders")));
  post(base, R"({"tag":"v1.0"})", 409);
  post(base, R"({"tag":"a/b"})", 400);
  post(base, "{}", 400);
  sql("shop/orders", "DROP TABLE t");
  EXPECT_THAT(sql_at("tag:v1.0", "SELECT count(*) FROM t"), HasSubstr("[[0]]"));
  EXPECT_THAT(get(base), HasSubstr("\"tag\":\"v1.0\""));
  EXPECT_EQ(ask("DELETE", base + "/v1.0").status, 204);
  EXPECT_EQ(ask("DELETE", base + "/v1.0").status, 404);
  EXPECT_THAT(sql_at("tag:v1.0", "SELECT 1", 404), HasSubstr("no tag"));
}

TEST_F(HistoryRoutes, SaysWhatIsWrong) {
  create("shop/orders");
  const std::string base = "/v1/databases/shop/orders/history";
  post(base + "/restore", "{}", 400);
  post(base + "/restore", R"({"at":"tag:none"})", 404);
  post(base + "/restore", R"({"at":"2001-01-01T00:00:00Z"})", 404);
  post(base + "/fork", "{}", 400);
  post(base + "/fork", R"({"name":"Bad Name"})", 400);
  get(base + "?limit=0", 400);
  get(base + "?details=1&limit=101", 400);
  get("/v1/databases/none/history", 404);
  EXPECT_EQ(ask("GET", base + "/restore").status, 405);
  EXPECT_EQ(ask("DELETE", base).status, 405);
  EXPECT_EQ(ask("GET", base + "/unknown").status, 400);
  // A fork of what was never written is empty.
  post(base + "/fork", R"({"name":"e"})", 201);
  EXPECT_THAT(sql("e", "CREATE TABLE t(a)"), HasSubstr("results"));
}

}  // namespace
}  // namespace offprint::server
