// Change feeds of real servers: a primary that is killed again and again, and a copy of it.
#include <atomic>
#include <set>
#include <thread>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/server_process.h"

namespace offprint::testing {
namespace {

std::string between(const std::string& text, const std::string& before, const std::string& after,
                    std::size_t& from) {
  std::size_t at = text.find(before, from);
  if (at == std::string::npos) return {};
  at += before.size();
  from = text.find(after, at);
  return text.substr(at, from - at);
}

// Polls for changes from the position that it came to, and keeps the table's ids.
class Consumer {
 public:
  explicit Consumer(std::string since) : position_(std::move(since)) {}

  // One poll; false: nobody answered.
  bool poll(std::uint16_t port, int wait_ms) {
    HttpConnection connection(port);
    auto answer = connection.request(
        "GET", fmt::format("/db/a/changes?since={}&wait={}", position_, wait_ms));
    if (!answer || answer->status == 503 || answer->status == 404) return false;
    EXPECT_EQ(answer->status, 200) << answer->body;
    for (std::size_t begin = 0; begin < answer->body.size();) {
      const std::size_t end = answer->body.find('\n', begin);
      take(answer->body.substr(begin, end - begin));
      begin = end + 1;
    }
    return answer->status == 200;
  }
  const std::string& position() const { return position_; }
  const std::multiset<int>& ids() const { return ids_; }
  int lines() const { return lines_; }

 private:
  void take(const std::string& line) {
    if (line.starts_with("{\"watermark\"")) return;
    EXPECT_FALSE(line.starts_with("{\"error\"")) << line;
    std::size_t at = 0;
    const std::string next = between(line, "{\"at\":\"", "\"", at);
    EXPECT_EQ(between(line, "\"prev\":\"", "\"", at), position_) << "a gap, or twice the same";
    position_ = next;
    ++lines_;
    for (std::size_t from = 0;;) {
      const std::string op = between(line, "\"op\":\"", "\"", from);
      if (op.empty()) return;
      const int id = std::stoi(between(line, "\"k\":{\"id\":", "}", from));
      if (op == "i") ids_.insert(id);
      if (op == "d") {
        EXPECT_EQ(ids_.erase(id), 1u);
      }
    }
  }

  std::string position_;
  std::multiset<int> ids_;
  int lines_ = 0;
};

std::string position_of(ServerProcess& server) {
  auto answer = server.request("POST", "/db/a/query", sql_body("SELECT 1"));
  return answer ? json_field(answer->body, "bookmark") : "";
}

std::multiset<int> ids_in(ServerProcess& server) {
  const std::string rows = server.query("a", "SELECT id FROM t");
  std::multiset<int> ids;
  for (std::size_t at = 0; (at = rows.find_first_of("0123456789", at)) != std::string::npos;) {
    std::size_t size = 0;
    ids.insert(std::stoi(rows.substr(at), &size));
    at += size;
  }
  return ids;
}

TEST(FeedServerTest, EachTransactionOnceOverKillsAndOnACopy) {
  TemporaryFolder folder, copy_folder;
  ServerProcess server(folder);
  ASSERT_TRUE(server.start());
  server.create("a");
  server.query("a", "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
  const std::string start = position_of(server);
  ServerProcess copy(copy_folder, {"--follow", server.url()});
  ASSERT_TRUE(copy.start());
  // What a copy was made of is not in its log.
  for (Deadline end = in_seconds(60);;) {
    auto answer = copy.request("GET", "/db/a/changes?wait=0");
    if (answer && answer->body.find(start) != std::string::npos) break;
    ASSERT_LT(SteadyClock::now(), end);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }

  std::atomic<bool> done = false;
  const std::uint16_t port = server.port();
  std::thread writer([&done, port] {
    HttpConnection connection(port, 5);
    for (int id = 1; !done; ++id) {
      (void)connection.request("POST", "/db/a/query",
                               fmt::format(R"_([{{"sql":"INSERT INTO t VALUES ({},1)"}},)_"
                                           R"_({{"sql":"DELETE FROM t WHERE id={}"}}])_",
                                           id, id % 3 == 0 ? id / 3 : -1));
      if (connection.refused()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  Consumer of_primary(start), of_copy(start);
  const int rounds = number_from_environment("OFFPRINT_TEST_ROUNDS", 5);
  for (int round = 0; round < rounds; ++round) {
    for (int lines = of_primary.lines(); of_primary.lines() < lines + 50;) {
      if (!of_primary.poll(server.port(), 200))
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      (void)of_copy.poll(copy.port(), 0);
      if (::testing::Test::HasFailure()) break;
    }
    if (::testing::Test::HasFailure()) break;
    server.kill();
    if (round % 2 == 1) {
      copy.kill();
      EXPECT_TRUE(copy.restart());
    }
    EXPECT_TRUE(server.restart());
  }
  done = true;
  writer.join();
  const std::string last = position_of(server);
  for (Deadline end = in_seconds(60);
       (of_primary.position() != last || of_copy.position() != last) &&
       !::testing::Test::HasFailure();) {
    ASSERT_LT(SteadyClock::now(), end) << of_copy.position() << " is not " << last;
    (void)of_primary.poll(server.port(), 0);
    if (!of_copy.poll(copy.port(), 100)) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(of_primary.ids(), ids_in(server));
  EXPECT_EQ(of_copy.ids(), of_primary.ids());
  EXPECT_EQ(of_copy.lines(), of_primary.lines());
}

}  // namespace
}  // namespace offprint::testing
