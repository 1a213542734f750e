// Hrana on a server that asks for tokens: every way to say SQL has the rights of who says it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/http_server.h"
#include "server/token_testing.h"
#include "server/websocket_testing.h"

namespace offprint::server {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing::TestWebSocket;

class HranaTokenTest : public testing::TokenRoutesTest {
 protected:
  void SetUp() override {
    TokenRoutesTest::SetUp();
    HttpServerOptions server;
    server.address = "127.0.0.1:0";
    server.io_threads = 2;
    http = std::make_unique<HttpServer>(server, *router);
    ASSERT_TRUE(http->start());
    port = static_cast<std::uint16_t>(
        std::stoi(http->address().substr(http->address().find(':') + 1)));
    sql_as(admin, "shop/orders", "CREATE TABLE orders(id INTEGER PRIMARY KEY, x)");
    sql_as(admin, "shop/orders", "CREATE TABLE secret(x)");
    reader = issuer.acl(R"({"db":"shop/orders","t":{"orders":["data_read"]}})");
  }
  void TearDown() override {
    http.reset();
    TokenRoutesTest::TearDown();
  }
  static std::string hello(const std::string& jwt) {
    return R"({"type":"hello","jwt":")" + jwt + "\"}";
  }
  static std::string request(const std::string& fields) {
    return R"({"type":"request","request_id":1,"request":{)" + fields + "}}";
  }
  static std::string open_stream() { return request(R"("type":"open_stream","stream_id":1)"); }
  static std::string execute(const std::string& sql) {
    return request(R"("type":"execute","stream_id":1,"stmt":{"sql":")" + sql + "\"}");
  }

  std::unique_ptr<HttpServer> http;
  std::uint16_t port = 0;
  std::string reader;
};

TEST_F(HranaTokenTest, SocketsAskInTheirHello) {
  for (const char* name : {"shop/orders", "bank/accounts", "no/such"}) {
    for (const std::string& said :
         {std::string(R"({"type":"hello"})"), hello("x.y.z"), hello(admin + "x"),
          hello(testing::Issuer().acl(R"({"db":"*","a":["data_read"]})")),
          hello(issuer.acl(R"({"db":"other","a":["data_read"]})"))}) {
      TestWebSocket socket(port);
      // Nobody is told before whether there is such a database.
      ASSERT_EQ(socket.open("/db/" + std::string(name), "hrana3"), 101);
      EXPECT_THAT(socket.ask(said), StartsWith(R"({"type":"hello_error")")) << said;
      EXPECT_THAT(socket.ask(open_stream()), StartsWith(R"({"type":"response_error")"));
    }
  }
  TestWebSocket socket(port);
  ASSERT_EQ(socket.open("/db/bank/accounts", "hrana3"), 101);
  EXPECT_THAT(socket.ask(hello(shop)), HasSubstr("TOKEN_FORBIDS"));
  EXPECT_EQ(socket.ask(hello(admin)), R"({"type":"hello_ok"})") << "it may be said again";
  EXPECT_THAT(socket.ask(open_stream()), HasSubstr("response_ok"));
}

TEST_F(HranaTokenTest, SocketsKeepToTheirRights) {
  TestWebSocket socket(port);
  ASSERT_EQ(socket.open("/db/shop/orders", "hrana3"), 101);
  socket.ask(hello(reader));
  socket.ask(open_stream());
  EXPECT_THAT(socket.ask(execute("SELECT * FROM orders")), HasSubstr("response_ok"));
  for (const std::string& asked :
       {execute("SELECT * FROM secret"), execute("DELETE FROM orders"),
        request(R"("type":"sequence","stream_id":1,"sql":"SELECT 1; SELECT * FROM secret")"),
        request(R"("type":"describe","stream_id":1,"sql":"SELECT * FROM secret")")}) {
    EXPECT_THAT(socket.ask(asked), HasSubstr("TOKEN_FORBIDS")) << asked;
  }
  socket.ask(request(R"("type":"open_cursor","stream_id":1,"cursor_id":1,)"
                     R"("batch":{"steps":[{"stmt":{"sql":"SELECT * FROM secret"}}]})"));
  EXPECT_THAT(socket.ask(request(R"("type":"fetch_cursor","cursor_id":1,"max_count":9)")),
              HasSubstr("TOKEN_FORBIDS"));
  // Another hello, in the middle of a transaction.
  socket.ask(hello(shop));
  socket.ask(execute("BEGIN"));
  EXPECT_THAT(socket.ask(execute("SELECT * FROM secret")), HasSubstr("response_ok"));
  socket.ask(hello(reader));
  EXPECT_THAT(socket.ask(execute("SELECT * FROM secret")), HasSubstr("TOKEN_FORBIDS"));
}

TEST_F(HranaTokenTest, SocketsEndWithTheirToken) {
  auto open = [&](const std::string& token) {
    auto socket = std::make_unique<TestWebSocket>(port);
    EXPECT_EQ(socket->open("/db/shop/orders", "hrana3"), 101);
    EXPECT_EQ(socket->ask(hello(token)), R"({"type":"hello_ok"})");
    return socket;
  };
  const std::string grant = R"({"db":"shop/*","a":["data_read"]})";
  auto brief = open(
      issuer.sign(fmt::format(R"({{"exp":{},"acl":[{}]}})", testing::seconds_now() + 2, grant)));
  auto revoked = open(issuer.acl(grant, R"(,"jti":"one")"));
  auto stays = open(shop);
  ASSERT_TRUE(revocations->add({"one", testing::seconds_now() + 600, {}, 0}));
  EXPECT_EQ(revoked->read(), "");
  EXPECT_EQ(revoked->close_code(), 1008);
  EXPECT_EQ(brief->read(), "");
  EXPECT_EQ(brief->close_code(), 1008);
  EXPECT_THAT(stays->ask(open_stream()), HasSubstr("response_ok"));
  ASSERT_TRUE(revocations->add({{}, 0, "shop/orders", testing::seconds_now() + 5}));
  EXPECT_EQ(stays->read(), "");
  EXPECT_EQ(stays->close_code(), 1008);
}

TEST_F(HranaTokenTest, SocketsAtTheRootMakeNothingForStrangers) {
  TestWebSocket socket(port);
  ASSERT_EQ(socket.open("/", "hrana3"), 101);
  EXPECT_THAT(socket.ask(hello(shop)), StartsWith(R"({"type":"hello_error")"));
  EXPECT_FALSE(store->info(*database::DatabaseName::parse("default")));
}

TEST_F(HranaTokenTest, CursorsAndSingleRequestsKeepToTheirRights) {
  auto cursor = [&](const std::string& token, const std::string& sql) {
    return ask_as(token, "POST", "/db/shop/orders/v3/cursor",
                  R"({"batch":{"steps":[{"stmt":{"sql":")" + sql + "\"}}]}}");
  };
  auto single = [&](const std::string& token, const std::string& sql) {
    return ask_as(token, "POST", "/db/shop/orders/v1/execute",
                  R"({"stmt":{"sql":")" + sql + "\"}}");
  };
  EXPECT_THAT(cursor(reader, "SELECT * FROM orders").body, HasSubstr("step_end"));
  EXPECT_EQ(single(reader, "SELECT * FROM orders").status, 200);
  for (const char* sql : {"SELECT * FROM secret", "DELETE FROM orders"}) {
    EXPECT_THAT(cursor(reader, sql).body, HasSubstr("TOKEN_FORBIDS")) << sql;
    EXPECT_EQ(single(reader, sql).status, 403) << sql;
  }
  std::string other = issuer.acl(R"({"db":"bank/*","a":["data_read"]})");
  EXPECT_EQ(cursor(other, "SELECT 1").status, 403);
  EXPECT_EQ(single(other, "SELECT 1").status, 403);
  EXPECT_EQ(ask("POST", "/db/shop/orders/v3/cursor", "{}").status, 401);
}

// The gate and the routes mean the same database.
TEST_F(HranaTokenTest, HostLabelsLeadNobodyAround) {
  service->options.host_label = true;
  create("bank");
  auto ask_host = [&](const std::string& token, const std::string& host) {
    HttpParser parser(64 << 10);
    std::string body = R"({"stmt":{"sql":"SELECT 1"}})";
    std::string text = "POST /v1/execute HTTP/1.1\r\nHost: " + host + "\r\nAuthorization: Bearer " +
                       token + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
                       body;
    for (std::size_t used = 0; used < text.size();)
      used += parser.feed(std::string_view(text).substr(used));
    BodyPlan plan = router->plan_body(parser.request());
    if (plan.refusal) return plan.refusal->status;
    parser.request().access = plan.access;
    parser.request().body = std::move(parser.body());
    auto client = std::make_shared<testing::FakeClient>();
    router->handle(parser.request(), nullptr, Responder(client));
    return client->wait().status;
  };
  std::string only_default = issuer.acl(R"({"db":"default","a":["data_read"]})");
  std::string only_bank = issuer.acl(R"({"db":"bank","a":["data_read"]})");
  EXPECT_EQ(ask_host(only_default, "bank.example.com"), 403);
  EXPECT_EQ(ask_host(only_bank, "bank.example.com"), 200);
  EXPECT_EQ(ask_host(only_bank, "localhost"), 403);
}

}  // namespace
}  // namespace offprint::server
