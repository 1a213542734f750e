#include "server/http_server.h"

#include <atomic>
#include <deque>
#include <thread>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "server/http_testing.h"

namespace offprint::server {
namespace {

using testing::TestSocket;

// Sends `total` bytes in pieces, and notes how many were asked for.
class CountingStream final : public BodyStream {
 public:
  CountingStream(std::size_t total, std::atomic<std::size_t>& made) : total_(total), made_(made) {}
  State fill(std::string& to) override {
    std::size_t size = std::min<std::size_t>(64 << 10, total_ - sent_);
    to.append(size, 'z');
    sent_ += size;
    made_ = sent_;
    return sent_ == total_ ? State::kEnd : State::kMore;
  }

 private:
  const std::size_t total_;
  std::size_t sent_ = 0;
  std::atomic<std::size_t>& made_;
};

// Says one word each time it is woken, and goodbye when the server stops.
class WordStream final : public BodyStream {
 public:
  struct Shared {
    std::mutex mutex;
    std::deque<std::string> words;
    std::shared_ptr<Client> client;
    void say(std::string word) {
      std::lock_guard lock(mutex);
      words.push_back(std::move(word));
      if (client) client->wake();
    }
  };
  explicit WordStream(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  void start(std::shared_ptr<Client> client) override {
    std::lock_guard lock(shared_->mutex);
    shared_->client = std::move(client);
  }
  State fill(std::string& to) override {
    std::lock_guard lock(shared_->mutex);
    while (!shared_->words.empty()) {
      to += shared_->words.front();
      shared_->words.pop_front();
    }
    if (!stopping_) return to.ends_with("fail") ? State::kFailed : State::kWait;
    to += "bye";
    return State::kEnd;
  }
  void stop() override { stopping_ = true; }

 private:
  std::shared_ptr<Shared> shared_;
  bool stopping_ = false;
};

class Gather final : public BodyReceiver {
 public:
  void receive(std::string piece, std::shared_ptr<Client> client) override {
    EXPECT_FALSE(busy_.exchange(true));
    EXPECT_LE(piece.size(), 2u << 20);
    if (helper_.joinable()) helper_.join();
    helper_ = std::thread([this, piece = std::move(piece), client = std::move(client)] {
      size_ += piece.size();
      busy_ = false;
      client->wake();
    });
  }
  ~Gather() override {
    if (helper_.joinable()) helper_.join();
  }
  bool busy() const override { return busy_; }
  std::size_t size() const { return size_; }

 private:
  std::atomic<bool> busy_ = false;
  std::atomic<std::size_t> size_ = 0;
  std::thread helper_;
};

// Answers /now at once and /later from another thread; /drop never; /stream, /words, /gather as
// above.
class TestHandler final : public HttpHandler {
 public:
  TestHandler() {
    for (int i = 0; i < 3; ++i) workers_.emplace_back([this] { work(); });
  }
  ~TestHandler() override { finish(); }
  void finish() {
    {
      std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    changed_.notify_all();
    for (auto& worker : workers_) {
      if (worker.joinable()) worker.join();
    }
  }

  BodyPlan plan_body(const HttpRequest& request) override {
    BodyPlan plan;
    plan.limit = 1000;
    if (request.target == "/gather") {
      plan.limit = 1 << 30;
      plan.receiver = std::make_shared<Gather>();
    }
    return plan;
  }
  void handle(HttpRequest& request, std::shared_ptr<BodyReceiver> receiver,
              Responder responder) override {
    Response response;
    response.content_type = "text/plain";
    if (request.target == "/now/large") {
      response.body.assign(5 << 20, 'L');
      return responder.respond(std::move(response));
    }
    response.body = std::string(request.target) + ":" + request.body;
    if (request.target.starts_with("/now")) return responder.respond(std::move(response));
    if (request.target == "/drop") return;
    if (request.target == "/gather") {
      response.body = std::to_string(static_cast<Gather&>(*receiver).size());
      return responder.respond(std::move(response));
    }
    if (request.target.starts_with("/stream")) {
      std::size_t total = std::stoul(std::string(request.target.substr(8)));
      response.body.clear();
      response.stream = std::make_unique<CountingStream>(total, made);
      if (request.header("With-Length") == "yes") response.stream_length = total;
      return responder.respond(std::move(response));
    }
    if (request.target == "/words") {
      response.body.clear();
      response.stream = std::make_unique<WordStream>(words);
      return responder.respond(std::move(response));
    }
    std::lock_guard lock(mutex_);
    jobs_.emplace_back(std::move(responder), std::move(response));
    changed_.notify_one();
  }

  // Jobs of /later wait until released.
  void hold(bool held) {
    std::lock_guard lock(mutex_);
    held_ = held;
    changed_.notify_all();
  }
  std::size_t waiting() {
    std::lock_guard lock(mutex_);
    return jobs_.size();
  }

  std::atomic<std::size_t> made = 0;
  std::shared_ptr<WordStream::Shared> words = std::make_shared<WordStream::Shared>();

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stopped_ || (!held_ && !jobs_.empty()); });
      if (jobs_.empty()) return;
      auto [responder, response] = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      responder.respond(std::move(response));
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<Responder, Response>> jobs_;
  bool held_ = false;
  bool stopped_ = false;
  std::vector<std::thread> workers_;
};

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest() {
    options.address = "127.0.0.1:0";
    options.io_threads = 2;
  }
  void start() {
    server = std::make_unique<HttpServer>(options, handler);
    auto started = server->start();
    ASSERT_TRUE(started) << started.error().message();
    auto address = parse_listen_address(server->address());
    port = address->port;
  }
  TestSocket connect() { return TestSocket(port); }
  static std::string get(std::string_view target, std::string_view more = {}) {
    return "GET " + std::string(target) + " HTTP/1.1\r\nHost: x\r\n" + std::string(more) + "\r\n";
  }
  static std::string post(std::string_view target, std::string_view body) {
    return "POST " + std::string(target) +
           " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
           std::string(body);
  }
  // Until `condition` holds, at most 20 seconds.
  template <class Condition>
  static bool eventually(Condition condition) {
    for (int i = 0; i < 4000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  HttpServerOptions options;
  TestHandler handler;
  std::unique_ptr<HttpServer> server;
  std::uint16_t port = 0;
};

TEST_F(HttpServerTest, KeepsTheConnection) {
  start();
  TestSocket socket = connect();
  for (int i = 0; i < 5; ++i) {
    auto answer = socket.ask(post(i % 2 == 0 ? "/now" : "/later", "body"));
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.body, i % 2 == 0 ? "/now:body" : "/later:body");
    EXPECT_NE(answer.head.find("\r\nDate: "), std::string::npos);
  }
  EXPECT_EQ(server->counters().connections, 1u);
  auto last = socket.ask(get("/now", "Connection: close\r\n"));
  EXPECT_NE(last.head.find("Connection: close"), std::string::npos);
  EXPECT_TRUE(socket.at_end());
}

TEST_F(HttpServerTest, PipelinedRequestsAreAnsweredInOrder) {
  start();
  TestSocket socket = connect();
  std::string all;
  for (int i = 0; i < 500; ++i) all += post(i % 3 == 0 ? "/later" : "/now", std::to_string(i));
  socket.send(all);
  for (int i = 0; i < 500; ++i) {
    EXPECT_EQ(socket.read().body, (i % 3 == 0 ? "/later:" : "/now:") + std::to_string(i));
  }
}

TEST_F(HttpServerTest, SplitAtEveryByte) {
  start();
  const std::string request = post("/later", "0123456789");
  for (std::size_t at = 1; at < request.size(); at += 3) {
    TestSocket socket = connect();
    socket.send(request.substr(0, at));
    // A round trip on another connection of the server gives the first part time to be read.
    connect().ask(get("/now"));
    socket.send(request.substr(at));
    EXPECT_EQ(socket.read().body, "/later:0123456789") << at;
  }
}

TEST_F(HttpServerTest, LargeAnswers) {
  start();
  TestSocket socket = connect();
  socket.send(get("/now/a") + get("/now/large") + "HEAD /now/large HTTP/1.1\r\nHost: x\r\n\r\n" +
              get("/now/b"));
  EXPECT_EQ(socket.read().body, "/now/a:");
  EXPECT_EQ(socket.read().body, std::string(5 << 20, 'L'));
  EXPECT_NE(socket.read(true).head.find("Content-Length: 5242880\r\n"), std::string::npos);
  EXPECT_EQ(socket.read().body, "/now/b:");
}

TEST_F(HttpServerTest, HeadHasNoBody) {
  start();
  TestSocket socket = connect();
  socket.send("HEAD /now HTTP/1.1\r\nHost: x\r\n\r\n" + get("/now/2"));
  auto answer = socket.read(true);
  EXPECT_NE(answer.head.find("Content-Length: 5\r\n"), std::string::npos);
  EXPECT_EQ(socket.read().body, "/now/2:");
  socket.send("HEAD /stream/100000 HTTP/1.1\r\nHost: x\r\n\r\n" + get("/now/3"));
  EXPECT_EQ(socket.read(true).status, 200);
  EXPECT_EQ(socket.read().body, "/now/3:");
}

TEST_F(HttpServerTest, OldClients) {
  start();
  TestSocket closing = connect();
  EXPECT_EQ(closing.ask("GET /now HTTP/1.0\r\n\r\n").body, "/now:");
  EXPECT_TRUE(closing.at_end());
  TestSocket staying = connect();
  EXPECT_EQ(staying.ask("GET /now HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").body, "/now:");
  EXPECT_EQ(staying.ask("GET /now HTTP/1.0\r\n\r\n").body, "/now:");
  TestSocket streaming = connect();
  EXPECT_EQ(streaming.ask("GET /stream/200000 HTTP/1.0\r\n\r\n").body, std::string(200000, 'z'));
}

TEST_F(HttpServerTest, ContinuesWhenAsked) {
  start();
  TestSocket socket = connect();
  socket.send("POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(socket.read().status, 100);
  socket.send("ok");
  EXPECT_EQ(socket.read().body, "/now:ok");
  socket.send(
      "POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(socket.read().status, 413);
  EXPECT_TRUE(socket.at_end());
}

TEST_F(HttpServerTest, ChunkedRequestBody) {
  start();
  TestSocket socket = connect();
  socket.send("POST /later HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 10; ++i) socket.send("3\r\nabc\r\n");
  socket.send("0\r\n\r\n" + get("/now"));
  EXPECT_EQ(socket.read().body, "/later:abcabcabcabcabcabcabcabcabcabc");
  EXPECT_EQ(socket.read().body, "/now:");
}

TEST_F(HttpServerTest, RefusedRequestsCloseTheConnection) {
  start();
  for (const auto& [request, status] : std::vector<std::pair<std::string, int>>{
           {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: "
            "chunked\r\n\r\n0\r\n\r\n",
            400},
           {"rubbish\r\n\r\n", 400},
           {get("/now", "X: " + std::string(20'000, 'x') + "\r\n"), 431},
           {post("/now", std::string(5'000, 'x')), 413},
       }) {
    TestSocket socket = connect();
    socket.send(get("/now/first") + request + get("/now/never"));
    EXPECT_EQ(socket.read().body, "/now/first:");
    auto refusal = socket.read();
    EXPECT_EQ(refusal.status, status);
    EXPECT_NE(refusal.body.find("\"code\""), std::string::npos);
    EXPECT_TRUE(socket.at_end()) << "nothing behind a refused request may be answered";
  }
}

TEST_F(HttpServerTest, LargeRefusedBodyStillGetsItsAnswer) {
  start();
  TestSocket socket = connect();
  socket.send(post("/now", std::string(700'000, 'x')));
  EXPECT_EQ(socket.read().status, 413);
}

TEST_F(HttpServerTest, DroppedRequestsAnswer500) {
  start();
  TestSocket socket = connect();
  EXPECT_EQ(socket.ask(get("/drop")).status, 500);
  EXPECT_EQ(socket.ask(get("/now")).status, 200);
}

TEST_F(HttpServerTest, BodyGoesToAReceiverPieceByPiece) {
  start();
  TestSocket socket = connect();
  const std::size_t size = 20 << 20;
  socket.send(post("/gather", std::string(size, 'g')) + get("/now"));
  EXPECT_EQ(socket.read().body, std::to_string(size));
  EXPECT_EQ(socket.read().body, "/now:");
}

TEST_F(HttpServerTest, StreamsAreChunkedOrCounted) {
  start();
  TestSocket socket = connect();
  auto chunked = socket.ask(get("/stream/1000000"));
  EXPECT_NE(chunked.head.find("Transfer-Encoding: chunked"), std::string::npos);
  EXPECT_EQ(chunked.body, std::string(1'000'000, 'z'));
  auto counted = socket.ask(get("/stream/300001", "With-Length: yes\r\n"));
  EXPECT_NE(counted.head.find("Content-Length: 300001"), std::string::npos);
  EXPECT_EQ(counted.body, std::string(300'001, 'z'));
  EXPECT_EQ(socket.ask(get("/now")).body, "/now:");
}

TEST_F(HttpServerTest, StreamWaitsForASlowClient) {
  start();
  TestSocket socket(port, 16 << 10);
  const std::size_t total = 64 << 20;
  socket.send(get("/stream/" + std::to_string(total)));
  // What is made without being read must stop growing far below the total: it fits into socket
  // buffers only.
  std::size_t before = 1;
  EXPECT_TRUE(eventually([&] {
    std::size_t now = handler.made;
    bool stands = now > 0 && now == before;
    before = now;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    return stands;
  }));
  EXPECT_LT(handler.made, total / 2);
  EXPECT_EQ(socket.read().body.size(), total);
}

TEST_F(HttpServerTest, StreamIsWokenByOtherThreads) {
  start();
  TestSocket socket = connect();
  socket.send(get("/words"));
  std::thread speaker([&] {
    for (int i = 0; i < 2000; ++i) handler.words->say("w");
    // A request that a stop finds unread is not answered.
    EXPECT_TRUE(eventually([&] { return server->counters().streams_open == 1; }));
    server->stop();
  });
  EXPECT_EQ(socket.read().body, std::string(2000, 'w') + "bye");
  speaker.join();
}

TEST_F(HttpServerTest, FailedStreamIsCutOff) {
  start();
  TestSocket socket = connect();
  handler.words->say("fail");
  socket.send(get("/words"));
  EXPECT_EQ(socket.read().body, "");
  EXPECT_TRUE(socket.at_end()) << "neither a last chunk nor another answer may follow";
}

TEST_F(HttpServerTest, SlowClientsAreCut) {
  options.limits.head_timeout_ms = 300;
  options.limits.idle_timeout_ms = 100;
  options.limits.body_timeout_ms = 300;
  start();
  TestSocket idle = connect();
  TestSocket in_head = connect();
  TestSocket in_body = connect();
  in_head.send("GET /now HTTP/1.1\r\nHos");
  in_body.send("POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab");
  EXPECT_TRUE(idle.at_end());
  EXPECT_EQ(in_head.read().status, 408);
  EXPECT_TRUE(in_head.at_end());
  EXPECT_EQ(in_body.read().status, 408);
  EXPECT_EQ(server->counters().timeouts, 3u);
}

TEST_F(HttpServerTest, ClientThatReadsNothingIsCut) {
  options.limits.write_timeout_ms = 300;
  start();
  TestSocket socket(port, 16 << 10);
  socket.send(get("/stream/200000000"));
  EXPECT_TRUE(eventually([&] { return server->counters().timeouts == 1; }));
  EXPECT_TRUE(eventually([&] { return server->counters().connections == 0; }));
}

TEST_F(HttpServerTest, ConnectionsHaveALimit) {
  options.connections_max = 3;
  start();
  std::vector<TestSocket> sockets;
  for (int i = 0; i < 3; ++i) {
    sockets.push_back(connect());
    EXPECT_EQ(sockets.back().ask(get("/now")).status, 200);
  }
  TestSocket refused = connect();
  EXPECT_EQ(refused.read().status, 503);
  EXPECT_TRUE(refused.at_end());
  EXPECT_EQ(server->counters().refused, 1u);
  sockets.pop_back();
  EXPECT_TRUE(eventually([&] { return server->counters().connections == 2; }));
  EXPECT_EQ(connect().ask(get("/now")).status, 200);
}

TEST_F(HttpServerTest, ClientsThatGoAwayLeaveNothingBehind) {
  start();
  handler.hold(true);
  {
    std::vector<TestSocket> sockets;
    for (int i = 0; i < 20; ++i) {
      sockets.push_back(connect());
      sockets.back().send(post("/later", "x"));
    }
    EXPECT_TRUE(eventually([&] { return handler.waiting() == 20; }));
  }
  handler.hold(false);
  EXPECT_TRUE(eventually([&] { return server->counters().connections == 0; }));
}

TEST_F(HttpServerTest, StopFinishesWhatRuns) {
  start();
  handler.hold(true);
  TestSocket busy = connect();
  TestSocket idle = connect();
  TestSocket words = connect();
  busy.send(post("/later", "x"));
  words.send(get("/words"));
  EXPECT_EQ(idle.ask(get("/now")).status, 200);
  EXPECT_TRUE(
      eventually([&] { return handler.waiting() == 1 && server->counters().streams_open == 1; }));
  std::thread stopper([&] { server->stop(); });
  EXPECT_TRUE(idle.at_end());
  EXPECT_EQ(words.read().body, "bye");
  handler.hold(false);
  auto answer = busy.read();
  EXPECT_EQ(answer.body, "/later:x");
  EXPECT_NE(answer.head.find("Connection: close"), std::string::npos);
  stopper.join();
}

TEST_F(HttpServerTest, StopAnswersWhatIsOnItsWay) {
  options.stop_quiet_ms = 9'000;
  start();
  TestSocket kept = connect();
  EXPECT_EQ(kept.ask(get("/now")).status, 200);
  TestSocket fresh = connect();
  std::thread stopper([&] { server->stop(); });
  EXPECT_TRUE(eventually([&] {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int probe = ::socket(AF_INET, SOCK_STREAM, 0);
    const bool is_refused =
        ::connect(probe, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0;
    ::close(probe);
    return is_refused;
  }));
  for (TestSocket* socket : {&kept, &fresh}) {
    auto answer = socket->ask(get("/now"));
    EXPECT_EQ(answer.status, 200);
    EXPECT_NE(answer.head.find("Connection: close"), std::string::npos);
    EXPECT_TRUE(socket->at_end());
  }
  stopper.join();  // it waits for nobody else
}

TEST_F(HttpServerTest, StopCutsWhatDoesNotEnd) {
  options.stop_timeout_ms = 50;
  start();
  handler.hold(true);
  TestSocket busy = connect();
  busy.send(post("/later", "x"));
  EXPECT_TRUE(eventually([&] { return handler.waiting() == 1; }));
  server->stop();
  EXPECT_TRUE(busy.at_end());
  server.reset();
  handler.hold(false);
  handler.finish();  // answers to a connection and a loop that are gone
}

TEST_F(HttpServerTest, ManyClientsAtOnce) {
  start();
  std::vector<std::thread> clients;
  std::atomic<int> right = 0;
  for (int c = 0; c < 8; ++c) {
    clients.emplace_back([&, c] {
      TestSocket socket = connect();
      for (int i = 0; i < 300; ++i) {
        std::string text = std::to_string(c) + "/" + std::to_string(i);
        if (socket.ask(post("/later", text)).body == "/later:" + text) ++right;
      }
    });
  }
  for (auto& client : clients) client.join();
  EXPECT_EQ(right, 8 * 300);
  HttpCounters counters = server->counters();
  EXPECT_EQ(counters.requests, 8u * 300);
  EXPECT_LE(counters.wakeups, 8u * 300);
}

TEST(ListenAddress, Texts) {
  EXPECT_TRUE(parse_listen_address("127.0.0.1:80")->loopback);
  EXPECT_TRUE(parse_listen_address("localhost:80")->loopback);
  EXPECT_TRUE(parse_listen_address("[::1]:80")->loopback);
  EXPECT_FALSE(parse_listen_address("0.0.0.0:80")->loopback);
  EXPECT_FALSE(parse_listen_address(":80")->loopback);
  EXPECT_FALSE(parse_listen_address("10.0.0.1:80")->loopback);
  for (const char* text :
       {"", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "example.org:80"}) {
    EXPECT_FALSE(parse_listen_address(text)) << text;
  }
}

}  // namespace
}  // namespace offprint::server
