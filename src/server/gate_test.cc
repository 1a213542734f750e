// Who gets in where.
#include "server/gate.h"

#include <set>

#include <gmock/gmock.h>

#include "server/route_rights.h"
#include "server/token_testing.h"

namespace offprint::server::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct Route {
  const char* method;
  const char* target;  // %N: a database's name; %E: the same with its slash escaped
  const char* body;
  bool open = false;  // without a token
};

// Every route that does or tells something.
constexpr Route kRoutes[] = {
    {"GET", "/", "", true},
    {"GET", "/health", "", true},
    {"GET", "/health?ready", "", true},
    {"GET", "/version", "", true},
    {"GET", "/metrics", ""},
    {"GET", "/v1/databases", ""},
    {"POST", "/v1/databases", R"({"name":"%N"})"},
    {"GET", "/v1/databases/%N", ""},
    {"HEAD", "/v1/databases/%N", ""},
    {"DELETE", "/v1/databases/%N", ""},
    {"PUT", "/v1/databases/%N", ""},
    {"GET", "/db/%N", ""},
    {"GET", "/db/%N/", ""},
    {"GET", "/db/%N/v2", ""},
    {"GET", "/db/%N/v3", ""},
    {"POST", "/db/%N/query", R"({"sql":"SELECT 1"})"},
    {"POST", "/db/%N/query", R"([{"sql":"SELECT 1"}])"},
    {"GET", "/db/%N/query", ""},
    {"POST", "/db/%N/v2/pipeline",
     R"({"requests":[{"type":"execute","stmt":{"sql":"SELECT 1"}}]})"},
    {"POST", "/db/%N/v3/pipeline",
     R"({"requests":[{"type":"execute","stmt":{"sql":"SELECT 1"}}]})"},
    {"POST", "/db/%N/v3/cursor", R"({"batch":{"steps":[{"stmt":{"sql":"SELECT 1"}}]}})"},
    {"POST", "/db/%N/v1/execute", R"({"stmt":{"sql":"SELECT 1"}})"},
    {"POST", "/db/%N/v1/batch", R"({"batch":{"steps":[{"stmt":{"sql":"SELECT 1"}}]}})"},
    {"POST", "/db/%N/execute", R"({"sql":"SELECT 1"})"},
    {"POST", "/db/%N/query?resultsFormat=NONE", R"({"sql":"SELECT 1"})"},
    {"GET", "/db/%N/dump", ""},
    {"POST", "/db/%N/dump", ""},
    {"GET", "/db/%N/export?format=csv&query=SELECT%201", ""},
    {"GET", "/db/%N/export?format=jsonl&table=money", ""},
    {"POST", "/db/%N/import?format=csv&table=money", "amount\n1\n"},
    {"POST", "/db/%N/d1-proxy", ""},
    {"POST", "/db/%N/import?format=sql", "SELECT 1"},
    {"GET", "/v1/databases/%N/insights", ""},
    {"GET", "/v1/databases/%N/usage", ""},
    {"GET", "/v1/databases/%N/slow", ""},
    {"GET", "/v1/usage", ""},
    {"PATCH", "/v1/databases/%N", R"({"limits":{"rows":1}})"},
    {"POST", "/v1/namespaces/%E/create", "{}"},
    {"POST", "/v1/namespaces/%E/fork/theirs-copy", "{}"},
    {"POST", "/v1/namespaces/%E/fork/%E", "{}"},
    {"POST", "/v1/namespaces/%E/checkpoint", ""},
    {"GET", "/v1/namespaces/%E/config", ""},
    {"POST", "/v1/namespaces/%E/config", R"({"block_reads":false,"block_writes":false})"},
    {"GET", "/v1/namespaces/%E/stats", ""},
    {"DELETE", "/v1/namespaces/%E", ""},
    {"GET", "/v1/namespaces/%E/unknown", ""},
    {"GET", "/client/v4/accounts/a/d1/database/%N", ""},
    {"DELETE", "/client/v4/accounts/a/d1/database/%N", ""},
    {"PUT", "/client/v4/accounts/a/d1/database/%N", "{}"},
    {"POST", "/client/v4/accounts/a/d1/database/%N/query", R"({"sql":"SELECT 1"})"},
    {"POST", "/client/v4/accounts/a/d1/database/%N/raw", R"({"sql":"SELECT 1"})"},
    {"POST", "/client/v4/accounts/a/d1/database/%N/export", R"({"output_format":"polling"})"},
    {"POST", "/client/v4/accounts/a/d1/database/%N/import", R"({"action":"init","etag":"x"})"},
    {"GET", "/client/v4/accounts/a/d1/database/%N/time_travel/bookmark", ""},
    {"POST", "/client/v4/accounts/a/d1/database/%N/time_travel/restore", ""},
    {"POST", "/client/v4/accounts/a/d1/database", R"({"name":"%N"})"},
    {"POST", "/v1/databases", R"({"name":"theirs-copy","copy_of":"%N"})"},
    {"GET", "/db/%N/stream", ""},
    {"GET", "/db/%N/stream?from=x", ""},
    {"POST", "/db/%N/pages", ""},
    {"GET", "/db/%N/snapshot", ""},
    {"HEAD", "/db/%N/snapshot", ""},
    {"POST", "/db/%N/import", "SQLite format 3"},
    {"GET", "/v1/stream?db=%N", ""},
    {"POST", "/v1/stream", "db=%N"},
    {"GET", "/v1/tokens/revoked", ""},
    {"POST", "/v1/tokens/revoke", R"({"jti":"x"})"},
    {"POST", "/v1/tokens/revoke", R"({"database":"%N"})"},
    {"GET", "/db/%N/unknown", ""},
    {"POST", "/db/%N/v4/pipeline", "{}"},
    {"GET", "/v9/anything", ""},
    {"POST", "/anything", ""},
    {"DELETE", "/", ""},
};

std::string named(std::string text, const std::string& name) {
  std::string escaped = name;
  if (std::size_t at = escaped.find('/'); at != std::string::npos) escaped.replace(at, 1, "%2F");
  for (std::size_t at = 0; (at = text.find("%E")) != std::string::npos;)
    text.replace(at, 2, escaped);
  if (std::size_t at = text.find("%N"); at != std::string::npos) text.replace(at, 2, name);
  return text;
}

class GateTest : public TokenRoutesTest {};

TEST_F(GateTest, EveryRouteAsksForAToken) {
  std::vector<std::string> fields = {
      "",
      "Authorization: \r\n",
      "Authorization: Bearer x.y.z\r\n",
      "Authorization: Basic YWRtaW46YWRtaW4=\r\n",
      "Authorization: Bearer " + Issuer().acl(R"({"db":"*","a":["admin","data_read"]})") + "\r\n",
      "Authorization: Bearer " + admin + "x\r\n",
      "X-Authorization: Bearer " + admin + "\r\n",
      "Cookie: token=" + admin + "\r\n",
  };
  for (const Route& route : kRoutes) {
    bool open = route.open;
    for (const std::string& field : fields) {
      Response response = ask(route.method, named(route.target, "shop/orders"),
                              named(route.body, "shop/orders"), field);
      std::string what = std::string(route.method) + " " + route.target + " " + field;
      if (open) {
        EXPECT_EQ(response.status, 200) << what;
      } else if (std::string_view(route.target) != "/") {
        EXPECT_EQ(response.status, 401) << what;
        EXPECT_THAT(response.headers, HasSubstr("WWW-Authenticate: Bearer")) << what;
        EXPECT_THAT(response.body, HasSubstr("{\"error\":")) << what;
      }
    }
    // Miniflare's bindings have no other place for it.
    bool takes_parameter = std::string_view(route.target).ends_with("/d1-proxy");
    if (!open && !takes_parameter && std::string_view(route.target) != "/") {
      std::string with_token = named(route.target, "shop/orders");
      with_token += (with_token.contains('?') ? "&token=" : "?token=") + admin;
      EXPECT_EQ(ask(route.method, with_token).status, 401) << with_token;
    }
  }
}

TEST_F(GateTest, AnotherTenantsTokenOpensNothing) {
  ASSERT_EQ(sql_as(admin, "bank/accounts", "CREATE TABLE money(amount)").status, 200);
  ASSERT_EQ(sql_as(admin, "bank/accounts", "INSERT INTO money VALUES(123454321)").status, 200);
  for (const Route& route : kRoutes) {
    if (route.open) continue;
    Response response = ask_as(shop, route.method, named(route.target, "bank/accounts"),
                               named(route.body, "bank/accounts"));
    std::string what = std::string(route.method) + " " + route.target;
    bool lists = (std::string_view(route.target) == "/v1/databases" && *route.body == 0) ||
                 std::string_view(route.target) == "/v1/usage";
    EXPECT_EQ(response.status, lists ? 200 : response.status == 404 ? 404 : 403) << what;
    EXPECT_THAT(response.body, Not(HasSubstr("123454321"))) << what;
    EXPECT_THAT(response.body, Not(HasSubstr("\"bank/accounts\""))) << what;
    EXPECT_FALSE(response.stream) << what;
    // The answer tells nobody whether such a database exists.
    Response absent = ask_as(shop, route.method, named(route.target, "bank/absent"),
                             named(route.body, "bank/absent"));
    EXPECT_EQ(absent.status, response.status) << what;
  }
  for (const char* space : {"bank/accounts", "bank%2faccounts", "BANK/accounts"}) {
    for (const char* path :
         {"/query", "/v2/pipeline", "/v3/pipeline", "/v3/cursor", "/v1/execute", "/v1/batch"}) {
      Response response = ask_as(shop, "POST", path, R"({"sql":"SELECT * FROM money"})",
                                 "x-namespace: " + std::string(space) + "\r\n");
      EXPECT_GE(response.status, 400) << space << path;
      EXPECT_THAT(response.body, Not(HasSubstr("123454321")));
    }
  }
  EXPECT_EQ(sql_as(admin, "bank/accounts", "SELECT * FROM money").status, 200);
}

// Ways to write an address that must not lead around the gate.
TEST_F(GateTest, NamesHaveOneSpelling) {
  ASSERT_EQ(sql_as(admin, "bank/accounts", "CREATE TABLE money AS SELECT 123454321 AS x").status,
            200);
  std::string long_name(5000, 'a');
  for (const std::string& target : {
           std::string("/db/shop/orders/../../bank/accounts/query"),
           std::string("/db/shop/%2e%2e/bank/accounts/query"),
           std::string("/db/shop/%2e%2e%2fbank%2faccounts/query"),
           std::string("/db/shop%2f..%2fbank/accounts/query"),
           std::string("/db/shop/orders%00/bank/accounts/query"),
           std::string("/db/shop/orders/%2e%2e/accounts/query"),
           std::string("/db//bank/accounts/query"),
           std::string("//db/bank/accounts/query"),
           std::string("/db/bank//accounts/query"),
           std::string("/db/BANK/accounts/query"),
           std::string("/DB/bank/accounts/query"),
           std::string("/db/bank%2faccounts/query"),
           std::string("/db/bank/accounts/query/"),
           std::string("/db/bank/accounts/query//"),
           std::string("/db/bank/accounts/%71uery"),
           std::string("/db/bank/%61ccounts/query"),
           std::string("/db/bank/accounts/query?db=shop/orders"),
           std::string("/db/bank/accounts/query;shop"),
           std::string("/./db/bank/accounts/query"),
           std::string("/db/") + long_name + "/query",
           std::string("/db/shop/") + long_name + "/query",
           std::string("/db/shop/*/query"),
           std::string("/db/shop/\xc3\xa9/query"),
           std::string("/v1/databases/shop/orders/../../bank/accounts"),
           std::string("/v1/databases/bank%2faccounts"),
           std::string("/v1/databases//bank/accounts"),
           std::string("/v1/namespaces/bank%2faccounts"),
           std::string("/v1/namespaces/bank/accounts"),
           std::string("/v1/namespaces/shop%2forders%2f..%2fbank/stats"),
       }) {
    for (const char* method : {"POST", "GET", "DELETE"}) {
      Response response = ask_as(shop, method, target, R"({"sql":"SELECT * FROM money"})");
      EXPECT_GE(response.status, 400) << method << " " << target;
      EXPECT_THAT(response.body, Not(HasSubstr("123454321"))) << target;
    }
  }
  EXPECT_EQ(sql_as(admin, "bank/accounts", "SELECT * FROM money").status, 200);
}

TEST_F(GateTest, TheFormOfARefusalIsThatOfItsRoute) {
  EXPECT_THAT(ask("POST", "/db/shop/orders/v2/pipeline", "{}").body,
              HasSubstr(R"({"error":"this server asks for a token)"));
  EXPECT_THAT(ask("POST", "/db/shop/orders/query", "{}").body,
              HasSubstr(R"({"error":{"code":"TOKEN_MISSING")"));
  EXPECT_THAT(ask_as(shop, "GET", "/metrics").body, HasSubstr("TOKEN_FORBIDS"));
}

TEST_F(GateTest, VerbsAreAskedForOnTheirRoutes) {
  struct Case {
    const char* verb;
    const char* method;
    const char* target;
  };
  const Case cases[] = {
      {"subscribe", "GET", "/db/shop/orders/stream?from=x"},
      {"subscribe", "POST", "/db/shop/orders/pages"},
      {"snapshot", "GET", "/db/shop/orders/snapshot"},
      {"admin", "POST", "/db/shop/orders/import"},
      {"data_read", "POST", "/db/shop/orders/query"},
      {"metrics", "GET", "/metrics"},
  };
  std::set<std::string> verbs;
  for (const Case& one : cases) verbs.insert(one.verb);
  for (const Case& one : cases) {
    for (const std::string& verb : verbs) {
      std::string token = issuer.acl(fmt::format(R"({{"db":"*","a":["{}"]}})", verb));
      Response response = ask_as(token, one.method, one.target, R"({"sql":"SELECT 1"})");
      EXPECT_EQ(response.status == 403, verb != one.verb) << verb << " " << one.target;
    }
  }
}

TEST_F(GateTest, RefusalsAreCounted) {
  for (const char* fields : {"", "Authorization: x\r\n", "Authorization: Bearer a.b.c\r\n"})
    EXPECT_EQ(ask("GET", "/db/shop/orders", "", fields).status, 401);
  std::string metrics = ask_as(admin, "GET", "/metrics").body;
  EXPECT_THAT(metrics, HasSubstr("\noffprint_tokens_refused_total 3\n"));
  EXPECT_THAT(metrics, HasSubstr("\noffprint_tokens_cached 1\n"));
}

TEST_F(GateTest, ManagementSeesItsOwn) {
  Response list = ask_as(shop, "GET", "/v1/databases");
  EXPECT_THAT(list.body, HasSubstr("shop/orders"));
  EXPECT_THAT(list.body, Not(HasSubstr("bank")));
  EXPECT_THAT(ask_as(admin, "GET", "/v1/databases").body, HasSubstr("bank/accounts"));
  // A page does not end with the name of another's database either.
  sql_as(admin, "bank/accounts", "CREATE TABLE t(a)");
  sql_as(admin, "shop/orders", "CREATE TABLE t(a)");
  for (const char* all : {"/v1/databases", "/v1/usage"}) {
    std::string path = all;
    EXPECT_THAT(ask_as(admin, "GET", path + "?limit=1").body,
                HasSubstr("\"next\":\"bank/accounts"));
    Response first = ask_as(shop, "GET", path + "?limit=1");
    EXPECT_THAT(first.body, HasSubstr("shop/orders"));
    EXPECT_THAT(first.body, Not(HasSubstr("bank")));
  }
  EXPECT_EQ(ask_as(shop, "POST", "/v1/databases", R"({"name":"shop/new"})").status, 201);
  EXPECT_EQ(ask_as(shop, "POST", "/v1/databases", R"({"name":"bank/new"})").status, 403);
  EXPECT_EQ(ask_as(shop, "DELETE", "/v1/databases/shop/new").status, 204);
  EXPECT_EQ(ask_as(shop, "DELETE", "/v1/databases/bank/accounts").status, 403);
}

TEST_F(GateTest, TablesAreGranted) {
  sql_as(admin, "shop/orders", "CREATE TABLE orders(id INTEGER PRIMARY KEY, x)");
  sql_as(admin, "shop/orders", "CREATE TABLE secret(x)");
  std::string token = issuer.acl(R"({"db":"shop/orders","t":{"orders":["data_read","data_add"]}})");
  EXPECT_EQ(sql_as(token, "shop/orders", "SELECT * FROM orders").status, 200);
  EXPECT_EQ(sql_as(token, "shop/orders", "INSERT INTO orders(x) VALUES(1)").status, 200);
  for (const char* sql : {"SELECT * FROM secret", "DELETE FROM orders", "PRAGMA table_list",
                          "SELECT orders.id FROM orders NATURAL JOIN secret"}) {
    Response response = sql_as(token, "shop/orders", sql);
    EXPECT_EQ(response.status, 403) << sql;
    EXPECT_THAT(response.body, HasSubstr("TOKEN_FORBIDS")) << sql;
  }
  // Each way to say SQL on a pipeline.
  for (const char* request :
       {R"({"type":"execute","stmt":{"sql":"SELECT * FROM secret"}})",
        R"({"type":"sequence","sql":"SELECT 1; SELECT * FROM secret"})",
        R"({"type":"describe","sql":"SELECT * FROM secret"})",
        R"({"type":"batch","batch":{"steps":[{"stmt":{"sql":"SELECT * FROM secret"}}]}})"}) {
    Response response = ask_as(token, "POST", "/db/shop/orders/v3/pipeline",
                               fmt::format(R"({{"requests":[{}]}})", request));
    EXPECT_THAT(response.body, HasSubstr("TOKEN_FORBIDS")) << request;
  }
}

// A stream's transaction goes on with the rights of each request.
TEST_F(GateTest, AStreamDoesNotLendItsRights) {
  sql_as(admin, "shop/orders", "CREATE TABLE secret(x)");
  Response first = ask_as(
      shop, "POST", "/db/shop/orders/v2/pipeline",
      R"({"requests":[{"type":"execute","stmt":{"sql":"BEGIN"}},{"type":"execute","stmt":{"sql":"SELECT * FROM secret"}}]})");
  std::string baton = between(first.body, "\"baton\":\"", "\"");
  ASSERT_FALSE(baton.empty()) << first.body;
  std::string narrow = issuer.acl(R"({"db":"shop/orders","t":{"orders":["data_read"]}})");
  Response second = ask_as(
      narrow, "POST", "/db/shop/orders/v2/pipeline",
      R"({"baton":")" + baton +
          R"(","requests":[{"type":"execute","stmt":{"sql":"SELECT * FROM secret"}},{"type":"close"}]})");
  EXPECT_THAT(second.body, HasSubstr("TOKEN_FORBIDS"));
}

TEST_F(GateTest, ARevokedTokenCountsNoMoreNotEvenAfterARestart) {
  std::string grant = R"({"db":"shop/*","a":["data_read"]})";
  std::string one = issuer.acl(grant, R"(,"jti":"one")");
  std::string two = issuer.acl(grant, R"(,"jti":"two")");
  EXPECT_EQ(sql_as(one, "shop/orders", "SELECT 1").status, 200);
  EXPECT_EQ(ask_as(shop, "POST", "/v1/tokens/revoke", R"({"jti":"one"})").status, 403);
  EXPECT_EQ(ask_as(admin, "POST", "/v1/tokens/revoke", R"({"jti":"one"})").status, 200);
  for (int restart = 0; restart < 2; ++restart) {
    EXPECT_EQ(sql_as(one, "shop/orders", "SELECT 1").status, 401);
    EXPECT_EQ(sql_as(two, "shop/orders", "SELECT 1").status, 200);
    EXPECT_THAT(ask_as(admin, "GET", "/v1/tokens/revoked").body, HasSubstr(R"({"jti":"one")"));
    if (restart > 0) break;
    service->authenticator = nullptr;
    authenticator.reset();
    revocations.reset();
    close();
    open();
    ask_for_tokens();
  }
  EXPECT_EQ(ask_as(admin, "POST", "/v1/tokens/revoke", R"({"database":"shop/orders"})").status,
            200);
  EXPECT_EQ(sql_as(two, "shop/orders", "SELECT 1").status, 403);
  EXPECT_EQ(sql_as(admin, "bank/accounts", "SELECT 1").status, 200);
  std::string later = issuer.sign(fmt::format(R"({{"iat":{},"exp":{},"acl":[{}]}})",
                                              seconds_now() + 5, seconds_now() + 600, grant));
  EXPECT_EQ(sql_as(later, "shop/orders", "SELECT 1").status, 200);
  EXPECT_EQ(ask_as(admin, "POST", "/v1/tokens/revoke", R"({"database":"*"})").status, 200);
  EXPECT_EQ(sql_as(admin, "bank/accounts", "SELECT 1").status, 401);
  for (const char* bad : {"{}", "[]", R"({"jti":""})", R"({"jti":"a","database":"b"})",
                          R"({"database":"B"})", R"({"jti":"a","until":5})"}) {
    std::string fresh =
        issuer.sign(fmt::format(R"({{"iat":{},"exp":{},"acl":[{{"db":"*","a":["admin"]}}]}})",
                                seconds_now() + 5, seconds_now() + 600));
    EXPECT_EQ(ask_as(fresh, "POST", "/v1/tokens/revoke", bad).status, 400) << bad;
  }
}

// Asks a stream as a connection does, until it says that it is over.
BodyStream::State end_of(BodyStream& stream) {
  auto client = std::make_shared<FakeClient>();
  stream.start(client);
  BodyStream::State state = BodyStream::State::kMore;
  std::string bytes;
  Deadline until = SteadyClock::now() + std::chrono::seconds(20);
  while (SteadyClock::now() < until && state != BodyStream::State::kFailed &&
         state != BodyStream::State::kEnd) {
    state = stream.fill(bytes);
    client->wait_for_wake_or(std::chrono::milliseconds(50));
  }
  return state;
}

TEST_F(GateTest, AnOpenStreamEndsWithItsToken) {
  auto open_stream = [&](const std::string& token, const std::string& target) {
    Response response = ask_as(token, "GET", target);
    EXPECT_TRUE(response.stream) << response.body;
    return std::move(response.stream);
  };
  const std::string grant = R"({"db":"shop/*","a":["subscribe","snapshot"]})";
  for (const char* target : {"/db/shop/orders/stream", "/v1/stream?db=shop/orders", "/v1/stream"}) {
    SCOPED_TRACE(target);
    std::string id = std::string("of ") + target;
    auto revoked = open_stream(issuer.acl(grant, ",\"jti\":\"" + id + "\""), target);
    ASSERT_TRUE(revocations->add({id, seconds_now() + 600, {}, 0}));
    EXPECT_EQ(end_of(*revoked), BodyStream::State::kFailed);
    auto brief = open_stream(
        issuer.sign(fmt::format(R"({{"exp":{},"acl":[{}]}})", seconds_now() + 2, grant)), target);
    EXPECT_EQ(end_of(*brief), BodyStream::State::kFailed);
  }
  // All tokens of one database: the stream of that one is cut, one of several loses it.
  auto single = open_stream(shop, "/db/shop/orders/stream");
  auto several = open_stream(shop, "/v1/stream?db=shop/orders");
  ASSERT_TRUE(revocations->add({{}, 0, "shop/orders", seconds_now() + 5}));
  EXPECT_EQ(end_of(*single), BodyStream::State::kFailed);
  EXPECT_EQ(end_of(*several), BodyStream::State::kEnd);
}

// What a request may not do must cost nothing: no spooled body, no database made.
TEST_F(GateTest, NothingIsDoneForWhoIsRefused) {
  HttpParser parser(64 << 10);
  parser.feed(
      "POST /db/shop/orders/import HTTP/1.1\r\nHost: x\r\nContent-Length: 1099511627776\r\n\r\n");
  BodyPlan plan = router->plan_body(parser.request());
  ASSERT_TRUE(plan.refusal);
  EXPECT_EQ(plan.refusal->status, 401);
  EXPECT_FALSE(plan.receiver);
  // Nor does a server keep much for those whom it asks nothing.
  for (const char* head :
       {"POST /health HTTP/1.1\r\nHost: x\r\n\r\n",
        "OPTIONS /db/shop/orders/query HTTP/1.1\r\nHost: x\r\nOrigin: x\r\n\r\n"}) {
    HttpParser stranger(64 << 10);
    stranger.feed(head);
    EXPECT_LE(router->plan_body(stranger.request()).limit, 4096u) << head;
  }
  std::string reader = issuer.acl(R"({"db":"default","a":["data_read"]})");
  EXPECT_EQ(ask_as(reader, "POST", "/query", R"({"sql":"SELECT 1"})").status, 404);
  std::string maker = issuer.acl(R"({"db":"default","a":["data_read","schema_add"]})");
  EXPECT_EQ(ask_as(maker, "POST", "/query", R"({"sql":"SELECT 1"})").status, 200);
}

TEST_F(GateTest, CompressedBodiesAreRefused) {
  for (const char* encoding : {"gzip", "deflate", "br", "gzip, gzip", "zstd"}) {
    Response response = ask_as(admin, "POST", "/db/shop/orders/query", "\x1f\x8b",
                               "Content-Encoding: " + std::string(encoding) + "\r\n");
    EXPECT_EQ(response.status, 415) << encoding;
  }
  EXPECT_EQ(ask_as(admin, "POST", "/db/shop/orders/query", R"({"sql":"SELECT 1"})",
                   "Content-Encoding: identity\r\n")
                .status,
            200);
}

TEST_F(GateTest, BrowsersSeeWhyTheyAreRefused) {
  service->options.allowed_origins = {"https://app.example"};
  Response refused = ask("POST", "/db/shop/orders/query", "{}", "Origin: https://app.example\r\n");
  EXPECT_EQ(refused.status, 401);
  EXPECT_THAT(refused.headers, HasSubstr("Access-Control-Allow-Origin: https://app.example"));
  Response stranger =
      ask("POST", "/db/shop/orders/query", "{}", "Origin: https://evil.example\r\n");
  EXPECT_THAT(stranger.headers, Not(HasSubstr("Access-Control-Allow-Origin")));
  EXPECT_EQ(ask("OPTIONS", "/db/shop/orders/query", "", "Origin: https://app.example\r\n").status,
            204);
}

}  // namespace
}  // namespace offprint::server::testing
