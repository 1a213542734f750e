// Sessions over a primary and three copies: two that follow it over a slow network, and one that
// follows a copy. OFFPRINT_TEST_ROUNDS says how often something breaks, OFFPRINT_TEST_SEED repeats
// a run.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include <fmt/format.h>

#include "tests/lag_proxy.h"
#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using namespace std::chrono_literals;

int from_environment(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

// What all sessions saw together: every transaction leaves one content, whoever shows it.
class History {
 public:
  // False: another copy showed another content for this bookmark.
  bool agrees(const std::string& bookmark, const std::string& content) {
    std::lock_guard lock(mutex_);
    auto [found, added] = seen_.emplace(bookmark, content);
    return added || found->second == content;
  }
  std::size_t size() {
    std::lock_guard lock(mutex_);
    return seen_.size();
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::string> seen_;
};

struct Counts {
  std::atomic<int> reads{0}, writes{0}, refused{0}, violations{0};
  std::mutex mutex;
  std::map<std::string, int> served_by;  // guarded by mutex
  std::string first_violation;           // guarded by mutex
};

// One client that goes to another node with each request.
class Session {
 public:
  // `ignores_bookmarks`: as if the copies did, the bug that the checks must find.
  Session(int client, const std::vector<std::uint16_t>& ports, History& history, Counts& counts,
          bool ignores_bookmarks)
      : client_(client),
        history_(history),
        counts_(counts),
        ignores_bookmarks_(ignores_bookmarks),
        random_(static_cast<unsigned>(client) * 7919 +
                static_cast<unsigned>(from_environment("OFFPRINT_TEST_SEED", 1))) {
    for (std::uint16_t port : ports) nodes_.push_back(std::make_unique<HttpConnection>(port, 20));
  }

  void step() {
    if (random_() % 3 == 0) {
      write();
    } else {
      read();
    }
  }

 private:
  std::optional<HttpConnection::Answer> send(const std::string& sql, const std::string& args) {
    std::string headers;
    if (!bookmark_.empty() && !ignores_bookmarks_)
      headers = "Offprint-Bookmark: " + bookmark_ + "\r\n";
    auto answer = nodes_[random_() % nodes_.size()]->request("POST", "/db/log/query",
                                                             sql_body(sql, args), headers);
    if (!answer || answer->status != 200) {
      ++counts_.refused;
      return std::nullopt;
    }
    std::string at = header_of(answer->head, "Offprint-Bookmark");
    bookmark_ = std::max(bookmark_, at);
    {
      std::lock_guard lock(counts_.mutex);
      ++counts_.served_by[header_of(answer->head, "Offprint-Served-By")];
    }
    return answer;
  }

  void write() {
    int number = ++tried_;
    if (!send("INSERT INTO log(client, seq) VALUES(?, ?)", fmt::format("[{},{}]", client_, number)))
      return;  // it may have happened
    ++counts_.writes;
    acknowledged_ = number;
  }

  void read() {
    auto answer = send(
        "SELECT coalesce(max(CASE WHEN client = ?1 THEN seq END), 0), count(*),"
        " coalesce(sum(n * (client * 1000 + seq) % 1000003), 0) FROM log",
        fmt::format("[{}]", client_));
    if (!answer) return;
    ++counts_.reads;
    int own = 0;
    long count = 0;
    long sum = 0;
    std::string rows = rows_of(answer->body);
    ASSERT_EQ(std::sscanf(rows.c_str(), "[[%d,%ld,%ld]]", &own, &count, &sum), 3) << rows;
    std::string at = json_field(answer->body, "bookmark");
    if (own < acknowledged_)
      violation(fmt::format("own write {} is missing at {}: {}", acknowledged_, at, own));
    if (count < seen_)
      violation(fmt::format("time went back at {}: {} after {}", at, count, seen_));
    if (!history_.agrees(at, fmt::format("{} {}", count, sum)))
      violation(fmt::format("two contents at {}", at));
    seen_ = count;
  }

  void violation(const std::string& what) {
    ++counts_.violations;
    std::lock_guard lock(counts_.mutex);
    if (counts_.first_violation.empty()) counts_.first_violation = what;
  }

  const int client_;
  std::vector<std::unique_ptr<HttpConnection>> nodes_;
  History& history_;
  Counts& counts_;
  const bool ignores_bookmarks_;
  std::mt19937 random_;
  std::string bookmark_;
  int tried_ = 0, acknowledged_ = 0;
  long seen_ = 0;
};

class SessionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(primary_.start());
    primary_.create("log");
    primary_.query("log", "CREATE TABLE log(n INTEGER PRIMARY KEY, client INT, seq INT)");
    for (auto& lag : lags_) lag = std::make_unique<LagProxy>(primary_.port());
    near_.set_options(
        {"--node-name", "near", "--follow", lags_[0]->url(), "--follow-wait-ms", "200"});
    far_.set_options(
        {"--node-name", "far", "--follow", lags_[1]->url(), "--follow-wait-ms", "200"});
    ASSERT_TRUE(near_.start());
    ASSERT_TRUE(far_.start());
    chained_.set_options(
        {"--node-name", "chained", "--follow", near_.url(), "--follow-wait-ms", "200"});
    ASSERT_TRUE(chained_.start());
    for (ServerProcess* copy : {&near_, &far_, &chained_}) ASSERT_TRUE(wait_for_copy(*copy));
  }
  // Until it has what the primary has.
  bool wait_for_copy(ServerProcess& copy) {
    std::string wanted;
    for (Deadline until = in_seconds(30); SteadyClock::now() < until;) {
      auto there = primary_.request("GET", "/v1/databases/log");
      auto here = copy.request("GET", "/v1/databases/log");
      if (there && here && here->status == 200 &&
          json_field(here->body, "bookmark") == json_field(there->body, "bookmark"))
        return true;
      std::this_thread::sleep_for(20ms);
    }
    ADD_FAILURE() << "a copy does not come: " << copy.log();
    return false;
  }
  std::vector<std::uint16_t> ports() {
    return {primary_.port(), near_.port(), far_.port(), chained_.port()};
  }
  // Runs sessions until `during` returns.
  template <class During>
  void run_sessions(int clients, bool ignore_bookmarks, During during) {
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int client = 0; client < clients; ++client) {
      threads.emplace_back([&, client] {
        Session session(client, ports(), history_, counts_, ignore_bookmarks);
        while (!stop.load()) session.step();
      });
    }
    during();
    stop.store(true);
    for (std::thread& thread : threads) thread.join();
  }

  TemporaryFolder primary_folder_, near_folder_, far_folder_, chained_folder_;
  ServerProcess primary_{primary_folder_, {"--node-name", "primary"}};
  ServerProcess near_{near_folder_}, far_{far_folder_}, chained_{chained_folder_};
  std::unique_ptr<LagProxy> lags_[2];
  History history_;
  Counts counts_;
};

TEST_F(SessionTest, NoSessionSeesTimeGoBackOrMissesItsOwnWrite) {
  std::mt19937 random(static_cast<unsigned>(from_environment("OFFPRINT_TEST_SEED", 1)));
  const int rounds = from_environment("OFFPRINT_TEST_ROUNDS", 8);
  run_sessions(8, false, [&] {
    for (int round = 0; round < rounds; ++round) {
      LagProxy& lag = *lags_[random() % 2];
      lag.set_delay_ms(static_cast<int>(random() % 300));
      std::this_thread::sleep_for(400ms);
      switch (round % 4) {
        case 0:
          lag.set_cut(true);
          std::this_thread::sleep_for(300ms);
          lag.set_cut(false);
          break;
        case 1:
          ASSERT_TRUE((random() % 2 == 0 ? far_ : chained_).restart());
          break;
        case 2:
          primary_.kill();
          ASSERT_TRUE(primary_.start());
          break;
        default:
          near_.kill();
          std::this_thread::sleep_for(200ms);
          ASSERT_TRUE(near_.start());
      }
    }
    for (auto& lag : lags_) lag->set_delay_ms(0);
  });
  std::lock_guard lock(counts_.mutex);
  fmt::print("{} reads, {} writes, {} refused, {} states seen; served by", counts_.reads.load(),
             counts_.writes.load(), counts_.refused.load(), history_.size());
  for (const auto& [node, count] : counts_.served_by) fmt::print(" {}: {}", node, count);
  fmt::print("\n");
  EXPECT_EQ(counts_.violations, 0) << counts_.first_violation;
  EXPECT_GT(counts_.writes, 20);
  for (const char* node : {"primary", "near", "far", "chained"})
    EXPECT_GT(counts_.served_by[node], 10) << node;
  for (ServerProcess* copy : {&near_, &far_, &chained_}) {
    ASSERT_TRUE(wait_for_copy(*copy));
    EXPECT_EQ(copy->query("log", "SELECT * FROM log"), primary_.query("log", "SELECT * FROM log"));
    EXPECT_EQ(copy->query("log", "PRAGMA integrity_check"), "[[\"ok\"]]");
  }
}

TEST_F(SessionTest, TheChecksFindCopiesThatIgnoreBookmarks) {
  for (auto& lag : lags_) lag->set_delay_ms(150);
  run_sessions(4, true, [&] {
    for (Deadline until = in_seconds(20); counts_.violations == 0 && SteadyClock::now() < until;)
      std::this_thread::sleep_for(20ms);
  });
  EXPECT_GT(counts_.violations, 0);
}

TEST_F(SessionTest, ALostPrimary) {
  primary_.query("log", "INSERT INTO log(client, seq) VALUES(1, 1)");
  ASSERT_TRUE(wait_for_copy(chained_));
  primary_.kill();
  for (auto& lag : lags_) lag->set_cut(true);
  for (ServerProcess* copy : {&near_, &chained_}) {
    std::this_thread::sleep_for(1200ms);
    HttpConnection client(copy->port());
    auto read = client.request("POST", "/db/log/query", sql_body("SELECT count(*) FROM log"));
    ASSERT_TRUE(read);
    EXPECT_EQ(rows_of(read->body), "[[1]]");
    EXPECT_GE(std::stol(header_of(read->head, "Offprint-Age-Ms")), 1000) << read->head;
    auto write = client.request("POST", "/db/log/query",
                                sql_body("INSERT INTO log(client, seq) VALUES(1, 2)"));
    ASSERT_TRUE(write);
    EXPECT_EQ(write->status, 503);
    EXPECT_NE(header_of(write->head, "Retry-After"), "");
    auto linearizable =
        client.request("POST", "/db/log/query", sql_body("SELECT 1"), "Offprint-Read: primary\r\n");
    EXPECT_EQ(linearizable->status, 503);
  }
  ASSERT_TRUE(primary_.start());
  for (auto& lag : lags_) lag->set_cut(false);
  EXPECT_EQ(chained_.query("log", "INSERT INTO log(client, seq) VALUES(1, 3)"), "[]");
  ASSERT_TRUE(wait_for_copy(chained_));
}

// Configuration is asked of and given to the primary, whoever is asked.
TEST_F(SessionTest, NamespacesAreManagedAtThePrimary) {
  HttpConnection client(chained_.port());
  auto ask = [&](const char* method, const char* target, const char* body = "") {
    auto answer = client.request(method, target, body);
    EXPECT_TRUE(answer && answer->status == 200) << target << (answer ? answer->body : "");
    return answer ? answer->body : "";
  };
  ask("POST", "/v1/namespaces/made/create", "{}");
  ask("POST", "/v1/namespaces/log/fork/forked");
  ask("POST", "/v1/namespaces/log/checkpoint");
  ask("POST", "/v1/namespaces/made/config",
      R"({"block_reads":false,"block_writes":true,"block_reason":"moved"})");
  std::string config = ask("GET", "/v1/namespaces/made/config");
  EXPECT_NE(config.find("\"block_reason\":\"moved\""), std::string::npos) << config;
  auto there = primary_.request("GET", "/v1/databases/made");
  ASSERT_TRUE(there);
  EXPECT_NE(there->body.find("\"writes_blocked\":true"), std::string::npos) << there->body;
  ask("DELETE", "/v1/namespaces/forked");
  EXPECT_EQ(primary_.request("GET", "/v1/databases/forked")->status, 404);
  EXPECT_NE(ask("GET", "/v1/namespaces/log/stats").find("\"query_count\":"), std::string::npos);
}

// A transaction with a client of a copy: its statements meet at the primary.
TEST_F(SessionTest, InteractiveTransactionsGoToThePrimary) {
  HttpConnection client(far_.port());
  std::string baton = "null";
  auto execute = [&](const std::string& sql) {
    auto answer = client.request(
        "POST", "/db/log/v2/pipeline",
        fmt::format(R"({{"baton":{},"requests":[{{"type":"execute","stmt":{{"sql":{}}}}}]}})",
                    baton, json_quoted(sql)));
    if (!answer) return std::string("cut");
    std::string next = json_field(answer->body, "baton");
    baton = next == "null" || next.empty() ? "null" : json_quoted(next);
    return header_of(answer->head, "Offprint-Served-By");
  };
  EXPECT_EQ(execute("SELECT 1"), "far");
  EXPECT_EQ(execute("BEGIN"), "primary");
  EXPECT_EQ(execute("INSERT INTO log(client, seq) VALUES(5, 1)"), "primary");
  EXPECT_EQ(execute("SELECT count(*) FROM log"), "primary");
  EXPECT_EQ(execute("COMMIT"), "primary");
  EXPECT_EQ(execute("SELECT 1"), "primary");  // it is the primary's stream now
  ASSERT_TRUE(wait_for_copy(far_));
  EXPECT_EQ(far_.query("log", "SELECT client, seq FROM log"), "[[5,1]]");
}

// Statements that a database which ships SQL would run to another result on each node.
TEST_F(SessionTest, WhatIsNotDeterministicIsTheSameOnEveryCopy) {
  const char* statements[] = {
      "CREATE TABLE r(v)",
      "INSERT INTO r VALUES(random ())",
      "INSERT INTO r VALUES(hex(randomblob(4+4)))",
      "INSERT INTO r VALUES(julianday()), (strftime('%s.%f')), (strftime('%f'))",
      "CREATE TABLE d(a, r DEFAULT (random()), ts DEFAULT (strftime('%f')))",
      "INSERT INTO d(a) VALUES(1), (2), (3)",
      "INSERT INTO r SELECT random() FROM d",
      "CREATE TRIGGER w AFTER INSERT ON d BEGIN INSERT INTO r VALUES(random()); END",
      "INSERT INTO d(a) SELECT a FROM d",
      "UPDATE r SET v = v || randomblob(3) WHERE rowid % 2",
      "CREATE VIRTUAL TABLE f USING fts5(t)",
      "INSERT INTO f SELECT hex(randomblob(20)) FROM d",
      "DELETE FROM r WHERE abs(random()) % 3 = 0",
      "VACUUM",
  };
  for (const char* sql : statements) primary_.query("log", sql);
  for (ServerProcess* copy : {&near_, &far_, &chained_}) {
    ASSERT_TRUE(wait_for_copy(*copy));
    for (const char* sql : {"SELECT quote(v) FROM r", "SELECT * FROM d", "SELECT t FROM f",
                            "SELECT sql FROM sqlite_schema"}) {
      EXPECT_EQ(copy->query("log", sql), primary_.query("log", sql)) << sql;
    }
    auto ours = primary_.request("GET", "/db/log/snapshot");
    auto theirs = copy->request("GET", "/db/log/snapshot");
    ASSERT_TRUE(ours && theirs);
    EXPECT_TRUE(ours->body == theirs->body);
  }
  EXPECT_GE(std::stoi(primary_.query("log", "SELECT count(DISTINCT r) FROM d").substr(2)), 6);
}

TEST_F(SessionTest, FoldersAreNotMixedUp) {
  EXPECT_EQ(near_.terminate(), 0);
  near_.set_options({});
  Finished refused = near_.run({"serve", "--data", near_.data(), "--listen", "127.0.0.1:0"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.err.find("--follow"), std::string::npos) << refused.err;
  EXPECT_EQ(primary_.terminate(), 0);
  refused = primary_.run({"serve", "--data", primary_.data(), "--listen", "127.0.0.1:0", "--follow",
                          "http://127.0.0.1:1"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.err.find("of its own"), std::string::npos) << refused.err;
}

}  // namespace
}  // namespace offprint::testing
