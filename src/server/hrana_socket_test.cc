// Hrana over WebSockets, as stock clients and hostile ones use it, against a listening server.
#include <thread>

#include <gtest/gtest.h>

#include "server/http_server.h"
#include "server/store_testing.h"
#include "server/websocket_testing.h"

namespace offprint::server {
namespace {

using testing::between;
using testing::TestWebSocket;

class HranaSocketTest : public testing::RoutesTest {
 protected:
  HranaSocketTest() { options.transaction_idle_ms = 400; }
  void SetUp() override {
    RoutesTest::SetUp();
    create("h");
    listen();
  }
  void TearDown() override {
    http.reset();
    RoutesTest::TearDown();
  }
  void listen() {
    HttpServerOptions server;
    server.address = "127.0.0.1:0";
    server.io_threads = 2;
    http = std::make_unique<HttpServer>(server, *router);
    ASSERT_TRUE(http->start());
    port = static_cast<std::uint16_t>(
        std::stoi(http->address().substr(http->address().find(':') + 1)));
  }

  // A connection that has said hello, with stream 1 open.
  std::unique_ptr<TestWebSocket> connect(const std::string& target = "/db/h",
                                         const std::string& protocols = "hrana3") {
    auto socket = std::make_unique<TestWebSocket>(port);
    EXPECT_EQ(socket->open(target, protocols), 101) << socket->body;
    EXPECT_EQ(socket->ask(R"_({"type":"hello","jwt":null})_"), R"_({"type":"hello_ok"})_");
    EXPECT_EQ(socket->ask(request(0, R"_("type":"open_stream","stream_id":1)_")),
              ok(0, R"_({"type":"open_stream"})_"));
    return socket;
  }
  static std::string request(int id, const std::string& fields) {
    return R"_({"type":"request","request_id":)_" + std::to_string(id) + R"_(,"request":{)_" +
           fields + "}}";
  }
  static std::string ok(int id, const std::string& response) {
    return R"_({"type":"response_ok","request_id":)_" + std::to_string(id) +
           ",\"response\":" + response + "}";
  }
  static std::string execute(int id, const std::string& sql, int stream = 1) {
    return request(id, R"_("type":"execute","stream_id":)_" + std::to_string(stream) +
                           R"_(,"stmt":{"sql":")_" + sql + "\"}");
  }
  static std::string failed(int id) {
    return R"_({"type":"response_error","request_id":)_" + std::to_string(id) + ",\"error\":{";
  }
  static bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }
  static int id_of(const std::string& answer) {
    std::string id = between(answer, "\"request_id\":", ",");
    return id.empty() ? -1 : std::stoi(id);
  }
  // The only value of the first row, read beside all streams.
  std::string value(const std::string& sql) {
    return between(post("/db/h/v1/execute", R"_({"stmt":{"sql":")_" + sql + "\"}}"),
                   "\"rows\":[[{\"type\":\"integer\",\"value\":\"", "\"");
  }
  std::string closed_after(const std::string& text, int code, bool hello = true) {
    TestWebSocket socket(port);
    EXPECT_EQ(socket.open("/db/h", "hrana3"), 101);
    if (hello) socket.ask(R"_({"type":"hello"})_");
    EXPECT_EQ(socket.ask(text), "") << text;
    EXPECT_EQ(socket.close_code(), code) << text;
    return socket.close_reason();
  }

  std::unique_ptr<HttpServer> http;
  std::uint16_t port = 0;
};

// Where idle transactions stay open.
class HranaSocketPatientTest : public HranaSocketTest {
 protected:
  HranaSocketPatientTest() { options.transaction_idle_ms = 60'000; }
};

TEST_F(HranaSocketTest, HandshakeAndSubprotocols) {
  struct Case {
    const char* offered;
    const char* chosen;
  };
  for (const Case& one :
       {Case{"", ""}, Case{"hrana1", "hrana1"}, Case{"hrana2, hrana1", "hrana2"},
        Case{"hrana1,hrana2, hrana3", "hrana3"}, Case{"hrana3-protobuf, hrana3", "hrana3"}}) {
    for (const char* target : {"/db/h", "/db/h/", "/"}) {
      TestWebSocket socket(port);
      EXPECT_EQ(socket.open(target, one.offered), 101) << socket.body;
      EXPECT_EQ(socket.protocol, one.chosen);
      EXPECT_EQ(socket.ask(R"_({"type":"hello"})_"), R"_({"type":"hello_ok"})_");
      socket.close();
    }
  }
  for (const char* offered : {"hrana3-protobuf", "chat"}) {
    TestWebSocket socket(port);
    EXPECT_EQ(socket.open("/db/h", offered), 400);
  }
  EXPECT_EQ(TestWebSocket(port).open("/db/none", "hrana2"), 404);
  EXPECT_EQ(TestWebSocket(port).open("/db/h/query", "hrana2"), 405);
}

TEST_F(HranaSocketTest, HandshakesThatAreNone) {
  auto ask = [&](const std::string& fields, const std::string& first = "GET /db/h HTTP/1.1") {
    testing::TestSocket socket(port);
    return socket.ask(first + "\r\nHost: x\r\n" + fields + "\r\n").status;
  };
  std::string key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
  std::string upgrade = "Upgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n";
  std::string version = "Sec-WebSocket-Version: 13\r\n";
  EXPECT_EQ(ask(upgrade + version), 400) << "no key";
  EXPECT_EQ(ask(upgrade + version + "Sec-WebSocket-Key: short\r\n"), 400);
  EXPECT_EQ(ask(upgrade + key), 426) << "no version";
  EXPECT_EQ(ask(upgrade + key + "Sec-WebSocket-Version: 8\r\n"), 426);
  EXPECT_EQ(ask("Upgrade: websocket\r\n" + key + version), 400) << "Connection does not say so";
  EXPECT_EQ(ask(upgrade + key + version, "GET /db/h HTTP/1.0"), 400);
  EXPECT_EQ(ask(upgrade + key + version + "Content-Length: 0\r\n", "POST /db/h HTTP/1.1"), 400);
  EXPECT_EQ(ask(key + version), 200) << "an ordinary request";
}

TEST_F(HranaSocketTest, PagesOfOtherOriginsAreRefusedUnlessAllowed) {
  EXPECT_EQ(TestWebSocket(port).open("/db/h", "hrana3", "https://other.example"), 403);
  service->options.allowed_origins = {"https://app.example"};
  EXPECT_EQ(TestWebSocket(port).open("/db/h", "hrana3", "https://app.example"), 101);
  EXPECT_EQ(TestWebSocket(port).open("/db/h", "hrana3", "https://other.example"), 403);
}

TEST_F(HranaSocketTest, RequestsOfEveryKind) {
  auto socket = connect();
  std::string answer = socket->ask(execute(1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)"));
  EXPECT_EQ(testing::stable(answer),
            ok(1, R"_({"type":"execute","result":{"cols":[],"rows":[],"affected_row_count":0,)_"
                  R"_("last_insert_rowid":"0","replication_index":"1","rows_read":#,)_"
                  R"_("rows_written":#,"query_duration_ms":#}})_"));
  answer = socket->ask(request(
      2,
      R"_("type":"batch","stream_id":1,"batch":{"steps":[{"stmt":{"sql":"INSERT INTO t VALUES (1,'a')"}},)_"
      R"_({"condition":{"type":"ok","step":0},"stmt":{"sql":"SELECT v FROM t"}},{"stmt":{"sql":"SELEC"}}]})_"));
  EXPECT_TRUE(has(answer, R"_({"type":"text","value":"a"})_") && has(answer, "SQLITE_ERROR"))
      << answer;
  EXPECT_EQ(
      socket->ask(request(
          3,
          R"_("type":"sequence","stream_id":1,"sql":"INSERT INTO t VALUES (2,'b'); SELECT 1;")_")),
      ok(3, R"_({"type":"sequence"})_"));
  EXPECT_TRUE(has(
      socket->ask(
          request(4, R"_("type":"describe","stream_id":1,"sql":"SELECT v FROM t WHERE id = ?")_")),
      R"_("params":[{"name":null}],"cols":[{"name":"v","decltype":null}],"is_explain":false,"is_readonly":true)_"));
  EXPECT_EQ(
      socket->ask(request(5, R"_("type":"store_sql","sql_id":-7,"sql":"SELECT count(*) FROM t")_")),
      ok(5, R"_({"type":"store_sql"})_"));
  EXPECT_TRUE(
      has(socket->ask(request(6, R"_("type":"execute","stream_id":1,"stmt":{"sql_id":-7})_")),
          "\"value\":\"2\""));
  EXPECT_EQ(socket->ask(request(7, R"_("type":"close_sql","sql_id":-7)_")),
            ok(7, R"_({"type":"close_sql"})_"));
  EXPECT_TRUE(socket->ask(request(8, R"_("type":"execute","stream_id":1,"stmt":{"sql_id":-7})_"))
                  .starts_with(failed(8)));
  EXPECT_EQ(socket->ask(request(9, R"_("type":"get_autocommit","stream_id":1)_")),
            ok(9, R"_({"type":"get_autocommit","is_autocommit":true})_"));
  socket->ask(execute(10, "BEGIN"));
  EXPECT_EQ(socket->ask(request(11, R"_("type":"get_autocommit","stream_id":1)_")),
            ok(11, R"_({"type":"get_autocommit","is_autocommit":false})_"));
  answer = socket->ask(execute(12, "INSERT INTO t VALUES (1,'again')"));
  EXPECT_TRUE(answer.starts_with(failed(12)));
  EXPECT_TRUE(has(
      answer, "\"code\":\"SQLITE_CONSTRAINT\",\"extended_code\":\"SQLITE_CONSTRAINT_PRIMARYKEY\""));
  EXPECT_EQ(socket->ask(request(-2147483648, R"_("type":"close_stream","stream_id":1)_")),
            ok(-2147483648, R"_({"type":"close_stream"})_"));
  EXPECT_EQ(socket->ask(request(14, R"_("type":"close_stream","stream_id":99)_")),
            ok(14, R"_({"type":"close_stream"})_"));
  EXPECT_TRUE(socket->ask(execute(15, "SELECT 1")).starts_with(failed(15))) << "it is closed";
  socket->close();
}

// Stock clients send all of this before they hear anything.
TEST_F(HranaSocketTest, EverythingIsSentBeforeTheFirstAnswer) {
  TestWebSocket socket(port);
  ASSERT_EQ(socket.open("/db/h", "hrana2"), 101);
  socket.send(R"_({"type":"hello"})_");
  socket.send(request(0, R"_("type":"open_stream","stream_id":0)_"));
  socket.send(request(1, R"_("type":"store_sql","sql_id":0,"sql":"CREATE TABLE t(id)")_"));
  socket.send(request(2, R"_("type":"execute","stream_id":0,"stmt":{"sql_id":0})_"));
  for (int i = 0; i < 200; ++i) {
    socket.send(execute(3 + i, "INSERT INTO t VALUES (" + std::to_string(i) + ")", 0));
  }
  socket.send(request(300, R"_("type":"close_stream","stream_id":0)_"));
  EXPECT_EQ(socket.read(), R"_({"type":"hello_ok"})_");
  for (int i = 0; i < 203; ++i) {
    std::string answer = socket.read();
    EXPECT_EQ(id_of(answer), i) << "requests of one stream are answered in order: " << answer;
    EXPECT_TRUE(has(answer, "response_ok")) << answer;
  }
  EXPECT_EQ(id_of(socket.read()), 300);
  EXPECT_EQ(value("SELECT count(*) FROM t"), "200");
}

TEST_F(HranaSocketTest, StreamsRunBesideEachOther) {
  auto socket = connect();
  socket->ask(request(1, R"_("type":"open_stream","stream_id":2)_"));
  socket->ask(execute(2, "CREATE TABLE t(id)"));
  std::string slow =
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 2000000) "
      "SELECT max(i) FROM n";
  socket->send(execute(3, slow, 1));
  socket->send(execute(4, "SELECT 4", 1));
  socket->send(execute(5, "SELECT 5", 2));
  EXPECT_EQ(id_of(socket->read()), 5) << "another stream does not wait";
  EXPECT_EQ(id_of(socket->read()), 3);
  EXPECT_EQ(id_of(socket->read()), 4) << "the same stream does";
}

TEST_F(HranaSocketPatientTest, OpenTransactionsEndWithTheirStreamOrConnection) {
  auto socket = connect();
  socket->ask(execute(1, "CREATE TABLE t(id)"));
  auto leave_open = [&](TestWebSocket& one, int stream) {
    one.ask(execute(2, "BEGIN IMMEDIATE", stream));
    EXPECT_TRUE(has(one.ask(execute(3, "INSERT INTO t VALUES (1)", stream)), "response_ok"));
    EXPECT_EQ(value("SELECT count(*) FROM t"), "0");
  };
  // Others can write at once, not only when the transaction was idle for too long.
  auto others_write = [&] {
    Deadline start = SteadyClock::now();
    post("/db/h/query", "\"DELETE FROM t\"");
    return SteadyClock::now() - start < std::chrono::seconds(15);
  };
  leave_open(*socket, 1);
  socket->ask(request(4, R"_("type":"close_stream","stream_id":1)_"));
  EXPECT_TRUE(others_write());
  socket->ask(request(5, R"_("type":"open_stream","stream_id":1)_"));
  leave_open(*socket, 1);
  socket->close();
  EXPECT_TRUE(others_write());
  socket = connect();
  leave_open(*socket, 1);
  socket->drop();
  EXPECT_TRUE(others_write());
  EXPECT_EQ(value("SELECT count(*) FROM t"), "0");
}

TEST_F(HranaSocketTest, IdleTransactionTimesOutAndTheStreamGoesOn) {
  auto socket = connect();
  socket->ask(execute(1, "CREATE TABLE t(id)"));
  socket->ask(execute(2, "BEGIN"));
  socket->ask(execute(3, "INSERT INTO t VALUES (1)"));
  post("/db/h/query", "\"INSERT INTO t VALUES (2)\"");  // waits until it is rolled back
  std::string answer = socket->ask(execute(4, "COMMIT"));
  EXPECT_TRUE(answer.starts_with(failed(4)) && has(answer, "TRANSACTION_TIMEOUT")) << answer;
  EXPECT_TRUE(has(socket->ask(execute(5, "SELECT group_concat(id) FROM t")), "\"2\""));
}

TEST_F(HranaSocketTest, Cursors) {
  auto socket = connect();
  std::string rows =
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 20000) "
      "SELECT i, zeroblob(100) FROM n";
  EXPECT_EQ(
      socket->ask(request(
          1,
          R"_("type":"open_cursor","stream_id":1,"cursor_id":9,"batch":{"steps":[{"stmt":{"sql":")_" +
              rows + R"_("}},{"stmt":{"sql":"nonsense"}}]})_")),
      ok(1, R"_({"type":"open_cursor"})_"));
  int entries = 0;
  int id = 2;
  std::string last;
  do {
    last = socket->ask(request(id, R"_("type":"fetch_cursor","cursor_id":9,"max_count":1000)_"));
    ASSERT_TRUE(last.starts_with(ok(id, R"_({"type":"fetch_cursor","entries":[)_").substr(0, 80)))
        << last.substr(0, 200);
    for (std::size_t at = 0; (at = last.find("{\"type\":\"row\"", at)) != std::string::npos; ++at)
      ++entries;
    ASSERT_LT(++id, 100);
  } while (has(last, "\"done\":false"));
  EXPECT_EQ(entries, 20000);
  EXPECT_TRUE(has(last, "step_error") && has(last, "replication_index")) << last;
  EXPECT_TRUE(
      has(socket->ask(request(101, R"_("type":"fetch_cursor","cursor_id":9,"max_count":5)_")),
          R"_("entries":[],"done":true)_"));
  EXPECT_EQ(socket->ask(request(102, R"_("type":"close_cursor","cursor_id":9)_")),
            ok(102, R"_({"type":"close_cursor"})_"));
  EXPECT_EQ(socket->ask(request(103, R"_("type":"close_cursor","cursor_id":9)_")),
            ok(103, R"_({"type":"close_cursor"})_"));
  EXPECT_TRUE(socket->ask(request(104, R"_("type":"fetch_cursor","cursor_id":9,"max_count":5)_"))
                  .starts_with(failed(104)));
  for (int i = 0; i < 40; ++i) {
    std::string answer =
        socket->ask(request(200 + i, R"_("type":"open_cursor","stream_id":1,"cursor_id":)_" +
                                         std::to_string(i) + R"_(,"batch":{"steps":[]})_"));
    EXPECT_EQ(has(answer, "TOO_MANY_CURSORS"), i >= 8) << answer;
  }
}

TEST_F(HranaSocketTest, ProtocolErrorsClose) {
  closed_after("{", 1007);
  closed_after("", 1007);
  closed_after("[]", 1008);
  closed_after(R"_({"type":"fly"})_", 1008);
  closed_after(R"_({"type":"hello","jwt":7})_", 1008);
  EXPECT_TRUE(has(closed_after(execute(1, "SELECT 1"), 1008, false), "hello"));
  closed_after(R"_({"type":"request","request_id":1})_", 1008);
  closed_after(R"_({"type":"request","request_id":1.5,"request":{}})_", 1008);
  closed_after(request(1, R"_("type":"open_stream")_"), 1008);
  closed_after(request(1, R"_("type":"open_stream","stream_id":2147483648)_"), 1008);
  closed_after(request(1, R"_("type":"close","stream_id":1)_"), 1008);
  closed_after(request(1, R"_("type":"execute","stream_id":1,"stmt":{})_"), 1008);
  closed_after(request(1, R"_("type":"fetch_cursor","cursor_id":1,"max_count":-1)_"), 1008);
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "[";
  closed_after(deep, 1007);
  TestWebSocket socket(port);
  ASSERT_EQ(socket.open("/db/h", "hrana3"), 101);
  socket.send_binary("x");
  EXPECT_EQ(socket.read(), "");
  EXPECT_EQ(socket.close_code(), 1003);
}

TEST_F(HranaSocketTest, WrongIdsAreAnErrorOfTheirRequest) {
  auto socket = connect();
  EXPECT_TRUE(
      socket->ask(request(1, R"_("type":"open_stream","stream_id":1)_")).starts_with(failed(1)));
  EXPECT_TRUE(socket->ask(execute(2, "SELECT 1", 5)).starts_with(failed(2)));
  socket->ask(request(3, R"_("type":"store_sql","sql_id":1,"sql":"a")_"));
  EXPECT_TRUE(socket->ask(request(4, R"_("type":"store_sql","sql_id":1,"sql":"b")_"))
                  .starts_with(failed(4)));
  EXPECT_TRUE(has(socket->ask(execute(5, "SELECT 5")), "response_ok"));
}

TEST_F(HranaSocketTest, EverythingHasALimit) {
  service->options.body_bytes_max = 100'000;
  {
    TestWebSocket socket(port);
    ASSERT_EQ(socket.open("/db/h", "hrana3"), 101);
    EXPECT_EQ(socket.ask(std::string(100'001, ' ')), "");
    EXPECT_EQ(socket.close_code(), 1009);
  }
  auto socket = connect();
  for (int i = 0; i < 600; ++i)
    socket->send(request(i, R"_("type":"open_stream","stream_id":)_" + std::to_string(100 + i)));
  int refused = 0;
  for (int i = 0; i < 600; ++i) refused += has(socket->read(), "TOO_MANY_STREAMS") ? 1 : 0;
  EXPECT_EQ(refused, 600 + 1 - 512);
  std::string text(50'000, 'x');
  int stored = 0;
  for (int i = 0; i < 200; ++i) {
    std::string answer =
        socket->ask(request(i, R"_("type":"store_sql","sql_id":)_" + std::to_string(i) +
                                   R"_(,"sql":")_" + text + "\""));
    stored += has(answer, "response_ok") ? 1 : 0;
    EXPECT_TRUE(has(answer, "response_ok") || has(answer, "SQL_STORE_TOO_LARGE")) << answer;
  }
  EXPECT_EQ(stored, (1 << 20) / 50'000);
  service->options.response_bytes_max = 10'000;
  EXPECT_TRUE(has(socket->ask(execute(1, "SELECT zeroblob(20000)")), "RESPONSE_TOO_LARGE"));
}

// A client that asks for much and reads nothing stops the connection, not the server.
TEST_F(HranaSocketTest, SlowClientsAreNotReadFurther) {
  TestWebSocket socket(port);
  ASSERT_EQ(socket.open("/db/h", "hrana3"), 101);
  socket.ask(R"_({"type":"hello"})_");
  socket.ask(request(0, R"_("type":"open_stream","stream_id":1)_"));
  std::uint64_t read_before = store->metrics().requests_read;
  constexpr int kRequests = 400;
  std::thread writer([&] {
    for (int i = 0; i < kRequests; ++i) socket.send(execute(i, "SELECT hex(zeroblob(100000))"));
  });
  // It comes to rest long before all have run.
  Deadline until = SteadyClock::now() + std::chrono::seconds(10);
  std::uint64_t before = 0;
  std::uint64_t now = 1;
  while (before != now && SteadyClock::now() < until) {
    before = store->metrics().requests_read;
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    now = store->metrics().requests_read;
  }
  EXPECT_LT(now - read_before, kRequests / 2);
  for (int i = 0; i < kRequests; ++i) EXPECT_EQ(id_of(socket.read()), i);
  writer.join();
}

// Requests that wait count with their bytes: a client cannot leave its memory here.
TEST_F(HranaSocketPatientTest, LargeRequestsAreNotGathered) {
  auto socket = connect();
  socket->ask(execute(1, "CREATE TABLE t(v)"));
  socket->ask(execute(2, "BEGIN IMMEDIATE"));  // what others write waits for its end
  auto other = connect();
  std::string large = execute(3, "INSERT INTO t VALUES ('" + std::string(3 << 20, 'x') + "')");
  std::thread writer([&] {
    for (int i = 0; i < 10; ++i) other->send(large);
  });
  std::uint64_t before = 0;
  std::uint64_t now = 1;
  Deadline until = SteadyClock::now() + std::chrono::seconds(10);
  while (before != now && SteadyClock::now() < until) {
    before = http->counters().bytes_in;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    now = http->counters().bytes_in;
  }
  EXPECT_LT(now, 10u << 20) << "two of them, and no more";
  socket->ask(execute(4, "COMMIT"));
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(has(other->read(), "response_ok"));
  writer.join();
}

TEST_F(HranaSocketTest, PingsAndSilence) {
  service->options.socket_idle_ms = 2'000;
  auto socket = connect();
  socket->ping();
  socket->ask(execute(1, "SELECT 1"));
  EXPECT_EQ(socket->pongs(), 1);
  // A client that answers pings stays, and one that is dead is cut.
  TestWebSocket dead(port);
  ASSERT_EQ(dead.open("/db/h", "hrana3"), 101);
  std::thread reader([&] { EXPECT_EQ(socket->read(), ""); });  // Beast answers pings while it reads
  Deadline until = SteadyClock::now() + std::chrono::seconds(20);
  while (http->counters().streams_open > 1 && SteadyClock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(http->counters().streams_open, 1u);
  until = SteadyClock::now() + std::chrono::milliseconds(2'500);
  while (SteadyClock::now() < until) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(http->counters().streams_open, 1u) << "that one is alive";
  http->stop();
  reader.join();
  EXPECT_GE(socket->pings(), 1);
  EXPECT_EQ(socket->close_code(), 1001);
}

TEST_F(HranaSocketTest, TheServersStopAnswersWhatRuns) {
  auto socket = connect();
  socket->ask(execute(1, "CREATE TABLE t(id)"));
  auto idle = connect();
  idle->ask(execute(1, "BEGIN"));
  idle->ask(execute(2, "INSERT INTO t VALUES (1)"));
  std::uint64_t before = http->counters().bytes_in;
  socket->send(execute(2,
                       "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < "
                       "1000000) SELECT max(i) FROM n"));
  Deadline until = SteadyClock::now() + std::chrono::seconds(5);
  while (http->counters().bytes_in == before && SteadyClock::now() < until)
    std::this_thread::yield();
  std::thread stopper([&] { http->stop(); });
  EXPECT_TRUE(has(socket->read(), "\"value\":\"1000000\""));
  EXPECT_EQ(socket->read(), "");
  EXPECT_EQ(socket->close_code(), 1001);
  EXPECT_EQ(idle->read(), "");
  EXPECT_EQ(idle->close_code(), 1001);
  stopper.join();
  EXPECT_EQ(value("SELECT count(*) FROM t"), "0");
}

TEST_F(HranaSocketTest, ClientsThatCloseOrDisappearLeaveNothing) {
  for (int i = 0; i < 30; ++i) {
    auto socket = connect();
    if (i % 3 == 0) socket->ask(execute(1, "BEGIN IMMEDIATE"));
    for (int k = 0; k < 20; ++k) socket->send(execute(2 + k, "SELECT " + std::to_string(k)));
    if (i % 2 == 0) {
      socket->drop();
    } else {
      socket->close(i % 4 == 1 ? 1000 : 3999);
      if (i % 4 == 3) EXPECT_EQ(socket->close_code(), 3999);
    }
  }
  Deadline until = SteadyClock::now() + std::chrono::seconds(20);
  while (http->counters().connections > 0 && SteadyClock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(http->counters().connections, 0u);
  EXPECT_EQ(http->counters().streams_open, 0u);
  post("/db/h/query", "\"CREATE TABLE t(id)\"");
}

}  // namespace
}  // namespace offprint::server
