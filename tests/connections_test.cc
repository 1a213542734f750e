// Ten thousand clients at once: most of them idle, some slow, some hostile, and normal ones beside
// them that must not notice. As many as the limit of open files allows, if that is fewer.
// OFFPRINT_TEST_LARGE=1 stops a server with the default timeouts.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <thread>

#include <fmt/format.h>

#include "server/http_server.h"
#include "server/http_testing.h"
#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using server::testing::TestSocket;

constexpr std::size_t kClients = 10'000;
constexpr std::size_t kSlowEach = 50;  // clients of each slow kind
constexpr std::size_t kOthers = 250;   // connections that the server takes besides the idle ones
constexpr int kTimeoutMs = 2'000;      // of everything that a slow client does
constexpr std::size_t kAnswerBytes = 8 << 20;

const char* const kHealth = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";

std::string post(const std::string& path, const std::string& body) {
  return fmt::format("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}", path,
                     body.size(), body);
}

// What this process and the server, each with the same limit, can hold.
std::size_t idle_clients() {
  std::size_t files = server::raise_file_limit();
  std::size_t count = std::min(kClients, files - std::min<std::size_t>(files, 500));
  fmt::print("{} idle clients ({} open files allowed)\n", count, files);
  return count;
}

// A client that nobody hurts: writes and reads, every now and then over a new connection.
class NormalClient {
 public:
  explicit NormalClient(std::uint16_t port) : thread_([this, port] { run(port); }) {}
  ~NormalClient() { stop(); }
  void stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  // After stop(): the time in which all but one in a hundred requests were answered.
  double p99_ms() {
    std::sort(times_ms_.begin(), times_ms_.end());
    return times_ms_.empty() ? 0 : times_ms_[times_ms_.size() * 99 / 100];
  }
  double longest_ms() const { return times_ms_.empty() ? 0 : times_ms_.back(); }
  std::size_t requests() const { return times_ms_.size(); }
  const std::string& failure() const { return failure_; }

 private:
  void run(std::uint16_t port) {
    HttpConnection connection(port);
    for (int i = 0; !stop_ && failure_.empty(); ++i) {
      if (i % 16 == 0) connection.close();
      std::string sql = i % 2 == 0 ? "INSERT INTO t VALUES (1)" : "SELECT count(*) FROM t";
      Deadline start = SteadyClock::now();
      auto answer = connection.request("POST", "/db/crowd/query", sql_body(sql));
      times_ms_.push_back(
          std::chrono::duration<double, std::milli>(SteadyClock::now() - start).count());
      if (!answer || answer->status != 200) failure_ = answer ? answer->body : "cut";
    }
  }

  std::atomic<bool> stop_ = false;
  std::vector<double> times_ms_;
  std::string failure_;
  std::thread thread_;
};

class ConnectionsTest : public ::testing::Test {
 protected:
  void start(std::vector<std::string> options) {
    ASSERT_TRUE(server_.start());
    server_.set_options(std::move(options));
    ASSERT_TRUE(server_.restart());
    server_.create("crowd");
    server_.query("crowd", "CREATE TABLE t (a)");
  }
  void start_with_short_timeouts(std::size_t connections_max) {
    std::string timeout = std::to_string(kTimeoutMs);
    start({"--connections-max", std::to_string(connections_max), "--head-timeout-ms", timeout,
           "--body-timeout-ms", timeout, "--write-timeout-ms", timeout, "--idle-timeout-ms",
           "120000",
           // Else it is the closing of unused databases that gives memory back.
           "--idle-close-ms", "600000"});
  }

  void connect(std::vector<TestSocket>& sockets, std::size_t count, int receive_buffer = 0) {
    for (std::size_t i = 0; i < count && !HasFailure(); ++i)
      sockets.emplace_back(server_.port(), receive_buffer);
  }
  void expect_answers(std::vector<TestSocket>& sockets) {
    for (TestSocket& socket : sockets) socket.send(kHealth);
    std::size_t answered = 0;
    for (TestSocket& socket : sockets) answered += socket.read().status == 200 ? 1 : 0;
    EXPECT_EQ(answered, sockets.size());
  }
  // Until a metric has this value.
  void wait_for(const std::string& metric, std::uint64_t value) {
    std::uint64_t found = 0;
    for (Deadline end = in_seconds(30); SteadyClock::now() < end;
         std::this_thread::sleep_for(std::chrono::milliseconds(20))) {
      found = server_.metric(metric);
      if (found == value) return;
    }
    FAIL() << metric << " stays " << found << ", not " << value << "\n" << server_.log();
  }
  std::uint64_t memory_kib() { return process_memory_kib(server_.pid(), "VmRSS"); }
  // Without those of databases, whose readers come with the load: DatabasesKeepTheirDescriptors.
  std::size_t descriptors() {
    auto files = process_open_files(server_.pid());
    return static_cast<std::size_t>(std::ranges::count_if(
        files, [](const std::string& file) { return !file.contains("/databases/"); }));
  }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
};

// Those who send a byte now and then until they are cut off, a body that stands still, and answers
// that nobody reads.
class SlowClients {
 public:
  explicit SlowClients(std::uint16_t port) {
    for (std::size_t i = 0; i < kSlowEach; ++i) {
      heads_.emplace_back(port);
      bodies_.emplace_back(port);
      bodies_.back().send(
          "POST /db/crowd/query HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{");
    }
    for (std::size_t i = 0; i < kUnread; ++i) {
      unread_.emplace_back(port, 4096);
      unread_.back().send(post(
          "/db/crowd/query", sql_body(fmt::format("SELECT hex(zeroblob({}))", kAnswerBytes / 2))));
    }
  }
  std::size_t count() const { return heads_.size() + bodies_.size() + unread_.size(); }
  void send_a_byte() {
    static constexpr std::string_view kHead = "GET /health HTTP/1.1\r\nX: ";
    for (TestSocket& socket : heads_)
      socket.send(sent_ < kHead.size() ? kHead.substr(sent_, 1) : "x");
    ++sent_;
  }
  void expect_cut() {
    for (TestSocket& socket : heads_) expect_408(socket);
    for (TestSocket& socket : bodies_) expect_408(socket);
    for (TestSocket& socket : unread_) {
      EXPECT_LT(socket.read().body.size(), kAnswerBytes);
      EXPECT_TRUE(socket.at_end());
    }
  }

 private:
  static constexpr std::size_t kUnread = 10;

  static void expect_408(TestSocket& socket) {
    EXPECT_EQ(socket.read().status, 408);
    EXPECT_TRUE(socket.at_end());
  }

  std::vector<TestSocket> heads_, bodies_, unread_;
  std::size_t sent_ = 0;
};

TEST_F(ConnectionsTest, IdleAndSlowClientsHurtNobody) {
  const std::size_t count = idle_clients();
  start_with_short_timeouts(count + kOthers);
  if (HasFailure()) return;
  const std::size_t files = descriptors();
  NormalClient normal(server_.port());
  std::vector<TestSocket> idle;
  connect(idle, count);
  expect_answers(idle);
  ASSERT_FALSE(HasFailure());

  SlowClients slow(server_.port());
  Deadline start = SteadyClock::now();
  auto seconds = [&] { return std::chrono::duration<double>(SteadyClock::now() - start).count(); };
  while (server_.metric("http_timeouts_total") < slow.count() && seconds() < 20) {
    slow.send_a_byte();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  double cut_s = seconds();
  EXPECT_GE(cut_s, kTimeoutMs / 1000.0);
  EXPECT_LT(cut_s, kTimeoutMs / 1000.0 + 5);
  slow.expect_cut();
  expect_answers(idle);
  normal.stop();
  EXPECT_EQ(normal.failure(), "");
  EXPECT_LT(normal.p99_ms(), 1000);
  fmt::print(
      "{} slow clients cut within {:.1f} s; {} normal requests: p99 {:.1f} ms, longest {:.1f} ms\n",
      slow.count(), cut_s, normal.requests(), normal.p99_ms(), normal.longest_ms());
  idle.clear();
  wait_for("http_connections", 1);
  EXPECT_LE(descriptors(), files + 2);
}

TEST_F(ConnectionsTest, ACrowdGivesBackWhatItTook) {
  const std::size_t count = idle_clients();
  start_with_short_timeouts(count + kOthers);
  if (HasFailure()) return;
  const std::uint64_t before = memory_kib();
  const std::size_t files = descriptors();
  std::vector<std::uint64_t> left;
  for (int crowd = 0; crowd < 2 && !HasFailure(); ++crowd) {
    std::vector<TestSocket> idle;
    connect(idle, count);
    expect_answers(idle);
    std::uint64_t most = memory_kib();
    idle.clear();
    wait_for("http_connections", 1);
    // A loop looks once a second whether its crowd has gone.
    for (Deadline end = in_seconds(10);
         memory_kib() > before + (most - before) / 2 && SteadyClock::now() < end;)
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    left.push_back(memory_kib());
    fmt::print("memory: {} KiB before, {} with {} clients, {} after; {} descriptors, {} after\n",
               before, most, count, left.back(), files, descriptors());
    EXPECT_LE(left.back(), before + (most - before) / 2);
    EXPECT_LE(descriptors(), files + 2);
  }
  EXPECT_LE(left.back(), left.front() + (8 << 10)) << "each crowd leaves something behind";
}

TEST_F(ConnectionsTest, BeyondTheLimitIsAClearRefusal) {
  const std::size_t limit = 500, beyond = 60;
  start_with_short_timeouts(limit);
  if (HasFailure()) return;
  std::vector<TestSocket> all;
  connect(all, limit - 1);  // and the one of the test itself
  expect_answers(all);
  std::vector<TestSocket> refused;
  for (std::size_t i = 0; i < beyond; ++i) {
    refused.emplace_back(server_.port());
    if (i % 2 == 0) refused.back().send(post("/db/crowd/query", sql_body("SELECT 1")));
  }
  for (TestSocket& socket : refused) {
    TestSocket::Answer answer = socket.read();
    EXPECT_EQ(answer.status, 503);
    EXPECT_NE(answer.head.find("Retry-After: "), std::string::npos);
    EXPECT_NE(answer.body.find("too many connections"), std::string::npos) << answer.body;
    EXPECT_TRUE(socket.at_end());
  }
  EXPECT_EQ(server_.metric("http_connections_refused_total"), beyond);
  expect_answers(all);
  all.pop_back();
  wait_for("http_connections", limit - 1);
  connect(all, 1);
  expect_answers(all);
}

TEST_F(ConnectionsTest, DatabasesKeepTheirDescriptors) {
  const std::size_t limit = 600, databases = 20;
  server_.set_file_limit(limit);
  start({"--idle-close-ms", "500"});
  if (HasFailure()) return;
  for (std::size_t i = 0; i < databases; ++i) {
    std::string name = fmt::format("d{}", i);
    server_.create(name);
    server_.query(name, "CREATE TABLE t (a)");
  }
  wait_for("databases_open", 0);
  std::vector<TestSocket> taken, refused;
  connect(taken, limit / 2 - 1);
  expect_answers(taken);
  connect(refused, limit);
  for (TestSocket& socket : refused) EXPECT_EQ(socket.read().status, 503);
  for (std::size_t i = 0; i < databases; ++i) {
    server_.query(fmt::format("d{}", i), "INSERT INTO t VALUES (randomblob(2000000))");
  }
  EXPECT_EQ(server_.log().find("Too many open files"), std::string::npos) << server_.log();
}

TEST_F(ConnectionsTest, IdleClientsAreClosedInTheEnd) {
  start({"--idle-timeout-ms", "1500"});
  if (HasFailure()) return;
  const std::size_t files = descriptors();
  std::vector<TestSocket> idle;
  connect(idle, 500);
  for (TestSocket& socket : idle) EXPECT_TRUE(socket.at_end());
  wait_for("http_connections", 1);
  EXPECT_LE(descriptors(), files + 2);
}

TEST_F(ConnectionsTest, StopsInTimeWithAllOfThemConnected) {
  const std::size_t count = idle_clients();
  // With the real limits the slow ones hold it for the 10 s that running requests get.
  if (std::getenv("OFFPRINT_TEST_LARGE") != nullptr) {
    start({"--connections-max", std::to_string(count + kOthers)});
  } else {
    start_with_short_timeouts(count + kOthers);
  }
  if (HasFailure()) return;
  std::vector<TestSocket> idle, streams;
  connect(idle, count);
  expect_answers(idle);
  SlowClients slow(server_.port());
  slow.send_a_byte();
  connect(streams, kSlowEach);
  for (TestSocket& socket : streams) socket.send("GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n");
  wait_for("http_connections", 1 + idle.size() + slow.count() + streams.size());
  wait_for("http_streams", streams.size());
  Deadline start = SteadyClock::now();
  EXPECT_EQ(server_.terminate(15), 0) << server_.log();
  fmt::print("stopped within {:.1f} s\n",
             std::chrono::duration<double>(SteadyClock::now() - start).count());
  for (TestSocket& socket : idle) EXPECT_TRUE(socket.at_end());
  for (TestSocket& socket : streams) {
    EXPECT_EQ(socket.read().status, 200);
    EXPECT_TRUE(socket.at_end());
  }
}

}  // namespace
}  // namespace offprint::testing
