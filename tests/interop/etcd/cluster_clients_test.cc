#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <random>

#include <gtest/gtest.h>

#include "tests/interop/etcd/cluster_servers.h"

// What clients of a cluster notice of planned switches, restarts and kills: docs/guides/cluster.md.
namespace offprint::testing {
namespace {

std::int64_t now_us() { return std::chrono::steady_clock::now().time_since_epoch() / 1us; }

// Keeps its connection, and takes the next address when nobody is there: nothing more.
class StockClient {
 public:
  StockClient(const std::vector<std::uint16_t>& ports, std::size_t first) : which_(first) {
    for (std::uint16_t port : ports) nodes_.push_back(std::make_unique<HttpConnection>(port, 60));
  }
  std::optional<HttpConnection::Answer> request(const std::string& path, const std::string& body,
                                                const std::string& headers = {}) {
    for (std::size_t tries = 0; tries < 200; ++tries) {
      HttpConnection& node = *nodes_[which_ % nodes_.size()];
      auto answer = node.request("POST", path, body, headers);
      if (answer || !node.refused()) return answer;
      next();
      if (tries % nodes_.size() == nodes_.size() - 1) std::this_thread::sleep_for(10ms);
    }
    return std::nullopt;
  }
  void next() { ++which_; }

 private:
  std::vector<std::unique_ptr<HttpConnection>> nodes_;
  std::size_t which_;
};

class ClusterClients : public ClusterServers {
 protected:
  struct Done {
    std::int64_t from_us = 0, to_us = 0;
  };
  void SetUp() override {
    ClusterServers::SetUp();
    start_all();
    for (auto& node : nodes_) ports_.push_back(node->port());
    nodes_[0]->query("shop", "CREATE TABLE r(client INTEGER PRIMARY KEY, n)");
  }
  StockClient client(std::size_t first) { return {ports_, first}; }

  // Clients that write, and read what they wrote from whoever is primary. Whatever is not as it
  // should be is an error.
  void begin_work(int count) {
    for (int c = 0; c < count; ++c) clients_.emplace_back([this, c] { work_as(c); });
  }
  void work_as(int c) {
    StockClient own = client(static_cast<std::size_t>(c));
    const std::string count = sql_body(fmt::format("SELECT count(*) FROM t WHERE at={}", c));
    std::int64_t written = 0;
    for (int i = 0; !done_; ++i) {
      const bool reads = i % 4 == 3;
      const std::string id = fmt::format("{}-{}", c, i);
      const std::int64_t from = now_us();
      auto answer =
          reads ? own.request("/db/shop/query", count, "Offprint-Read: primary\r\n")
                : own.request("/db/shop/query",
                              sql_body(fmt::format("INSERT INTO t VALUES('{}', {})", id, c)));
      note({from, now_us()}, answer);
      if (!answer || answer->status != 200) continue;
      if (!reads) {
        ++written;
        std::lock_guard lock(mutex_);
        acknowledged_.insert(id);
      } else if (rows_of(answer->body) != fmt::format("[[{}]]", written)) {
        std::lock_guard lock(mutex_);
        refused_[fmt::format("{} instead of {} rows", rows_of(answer->body), written)] += 1;
      }
    }
  }
  void note(const Done& done, const std::optional<HttpConnection::Answer>& answer) {
    std::lock_guard lock(mutex_);
    done_all_.push_back(done);
    if (!answer) refused_["(cut)"] += 1;
    if (answer && answer->status != 200) refused_[answer->body.substr(0, 160)] += 1;
  }
  void expect_no_error() {
    for (const auto& [answer, times] : refused_) ADD_FAILURE() << times << " times: " << answer;
  }
  // How long `share` of the requests took at most, of those that met one of the moments or of the
  // others.
  double quantile_ms(double share, const std::vector<Done>& moments, bool of_those) {
    std::vector<std::int64_t> took;
    for (const Done& each : done_all_) {
      const bool met = std::ranges::any_of(moments, [&](const Done& moment) {
        return each.from_us <= moment.to_us && each.to_us >= moment.from_us;
      });
      if (met == of_those) took.push_back(each.to_us - each.from_us);
    }
    if (took.empty()) return 0;
    std::ranges::sort(took);
    const auto at = static_cast<std::size_t>(share * static_cast<double>(took.size() - 1));
    return static_cast<double>(took[at]) / 1000;
  }
  bool all_in_sync() {
    return within(30s, [&] { return in_sync(*nodes_[primary()]) == 3; });
  }
  // Answers whom the cluster then calls its primary.
  std::string switch_to(const std::string& node) {
    auto answer = nodes_[0]->request("POST", "/v1/cluster/switchover",
                                     node.empty() ? "" : "{\"to\":\"" + node + "\"}");
    if (!answer || answer->status != 200) {
      ADD_FAILURE() << (answer ? answer->body : "(cut)");
      return {};
    }
    return json_field(answer->body, "primary");
  }

  std::vector<std::uint16_t> ports_;
  std::vector<Done> done_all_;
};

TEST_F(ClusterClients, NoticeNothingOfARollingRestart) {
  begin_work(8);
  for (int round = 0; round < number_from_environment("OFFPRINT_TEST_ROUNDS", 1); ++round) {
    for (auto& node : nodes_) {
      std::this_thread::sleep_for(500ms);
      EXPECT_EQ(node->terminate(), 0);
      ASSERT_TRUE(node->start());
      ASSERT_TRUE(all_in_sync());
    }
  }
  end_load();
  fmt::print("{} requests, p50 {} ms, p99 {} ms, longest {} ms\n", done_all_.size(),
             quantile_ms(0.5, {}, false), quantile_ms(0.99, {}, false), quantile_ms(1, {}, false));
  expect_no_error();
  check();
}

TEST_F(ClusterClients, NoticeNothingOfPlannedSwitches) {
  begin_work(8);
  std::vector<Done> switches;
  for (int i = 0; i < number_from_environment("OFFPRINT_TEST_SWITCHES", 15); ++i) {
    std::this_thread::sleep_for(100ms);
    const std::int64_t from = now_us();
    switch_to("");
    switches.push_back({from, now_us()});
  }
  end_load();
  std::vector<std::int64_t> took;
  for (const Done& each : switches) took.push_back(each.to_us - each.from_us);
  std::ranges::sort(took);
  fmt::print("{} switches, half of them within {} ms, all within {} ms\n", took.size(),
             took[took.size() / 2] / 1000, took.back() / 1000);
  fmt::print(
      "{} requests: p50 {} ms, p99 {} ms; those that met a switch: p50 {} ms, p99 {} ms, "
      "longest {} ms\n",
      done_all_.size(), quantile_ms(0.5, switches, false), quantile_ms(0.99, switches, false),
      quantile_ms(0.5, switches, true), quantile_ms(0.99, switches, true),
      quantile_ms(1, switches, true));
  expect_no_error();
  check();
}

TEST_F(ClusterClients, ANodeIsNamed) {
  for (const char* node : {"n3", "n2", "n2", "n1"}) EXPECT_EQ(switch_to(node), node);
  auto none = nodes_[1]->request("POST", "/v1/cluster/switchover", R"({"to":"n9"})");
  ASSERT_TRUE(none);
  EXPECT_EQ(none->status, 409) << none->body;
}

// With a key a request is sent again until it has an answer, to whichever node.
TEST_F(ClusterClients, WithAKeyItHappensOnceThoughNodesAreKilled) {
  std::atomic<int> repeated = 0;
  for (int c = 0; c < 6; ++c) {
    clients_.emplace_back([this, c, &repeated] {
      StockClient own = client(static_cast<std::size_t>(c));
      std::mt19937_64 dice(static_cast<std::uint64_t>(c));
      for (int i = 0; !done_; ++i) {
        const std::string id = fmt::format("{}-{}", c, i);
        const std::string body =
            sql_body(fmt::format("INSERT INTO t VALUES('{}', random()) RETURNING at", id));
        const std::string key = "Idempotency-Key: " + id + "\r\n";
        std::optional<HttpConnection::Answer> answer;
        for (int tries = 0; tries < 100 && (!answer || answer->status != 200); ++tries) {
          if (tries > 0) own.next();
          if (tries > 0) ++repeated;
          answer = own.request("/db/shop/query", body, key);
        }
        std::optional<HttpConnection::Answer> again = answer;
        if (dice() % 8 == 0) {  // as if the answer had not come
          own.next();
          again = own.request("/db/shop/query", body, key);
        }
        std::lock_guard lock(mutex_);
        if (!answer || answer->status != 200) {
          refused_[answer ? answer->body : "(cut)"] += 1;
          continue;
        }
        acknowledged_.insert(id);
        if (again && again->status == 200 && again->body != answer->body)
          refused_[again->body + " instead of " + answer->body] += 1;
      }
    });
  }
  // Clients go from node to node: now and then none is where it is killed.
  for (int round = 0; round < 3 || (repeated == 0 && round < 10); ++round) {
    std::this_thread::sleep_for(1s);
    const std::size_t victim = primary();
    nodes_[victim]->kill();
    std::this_thread::sleep_for(2s);
    ASSERT_TRUE(nodes_[victim]->start());
    ASSERT_TRUE(all_in_sync());
  }
  end_load();
  fmt::print("{} acknowledged, {} sent again\n", acknowledged_.size(), repeated.load());
  EXPECT_GT(repeated, 0);
  expect_no_error();
  check();
  // Nothing is there that nobody was told of.
  EXPECT_EQ(nodes_[0]->query("shop", "SELECT count(*) FROM t"),
            fmt::format("[[{}]]", acknowledged_.size()));
}

// A primary that was stopped for longer than its lease must not answer what it read.
TEST_F(ClusterClients, ReadsOfThePrimaryAreTheNewest) {
  std::atomic<std::int64_t> told = 0;  // the greatest number whose write was acknowledged
  std::atomic<int> reads = 0;
  clients_.emplace_back([&] {
    StockClient own = client(1);
    own.request("/db/shop/query", sql_body("INSERT INTO r VALUES(0, 0)"));
    for (std::int64_t n = 1; !done_; ++n) {
      auto answer = own.request("/db/shop/query", sql_body(fmt::format("UPDATE r SET n={}", n)),
                                fmt::format("Idempotency-Key: {}\r\n", n));
      if (answer && answer->status == 200) told = n;
      if (!answer || answer->status != 200) own.next();
    }
  });
  for (std::size_t c = 0; c < 3; ++c) {
    clients_.emplace_back([&, c] {
      StockClient own = client(c);
      while (!done_) {
        const std::int64_t before = told;
        auto answer = own.request("/db/shop/query", sql_body("SELECT coalesce(max(n), 0) FROM r"),
                                  "Offprint-Read: primary\r\n");
        if (!answer || answer->status != 200) continue;
        ++reads;
        const std::string rows = rows_of(answer->body);
        std::lock_guard lock(mutex_);
        if (std::atoll(rows.c_str() + 2) < before)
          refused_[fmt::format("{} after {} was acknowledged", rows, before)] += 1;
      }
    });
  }
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(500ms);
    const pid_t pid = nodes_[primary()]->pid();
    ::kill(pid, SIGSTOP);
    std::this_thread::sleep_for(2s);
    ::kill(pid, SIGCONT);
    std::this_thread::sleep_for(500ms);
  }
  end_load();
  fmt::print("{} writes, {} reads\n", told.load(), reads.load());
  EXPECT_GT(told, 100);
  EXPECT_GT(reads, 100);
  expect_no_error();
}

std::string pipeline(const std::string& baton, const std::string& sql, bool closes = false) {
  return fmt::format(R"({{"baton":{},"requests":[{{"type":"execute","stmt":{{"sql":"{}"}}}}{}]}})",
                     baton.empty() ? "null" : "\"" + baton + "\"", sql,
                     closes ? R"(,{"type":"close"})" : "");
}

TEST_F(ClusterClients, AnInteractiveTransactionHasTimeToEnd) {
  ASSERT_EQ(switch_to("n1"), "n1");
  HttpConnection own(nodes_[0]->port());
  auto begun = own.request("POST", "/db/shop/v2/pipeline", pipeline("", "BEGIN IMMEDIATE"));
  ASSERT_TRUE(begun);
  std::string baton = json_field(begun->body, "baton");
  std::thread other([&] { EXPECT_EQ(switch_to("n2"), "n2"); });
  std::this_thread::sleep_for(300ms);
  auto written =
      own.request("POST", "/db/shop/v2/pipeline", pipeline(baton, "INSERT INTO t VALUES('x', 1)"));
  ASSERT_TRUE(written);
  baton = json_field(written->body, "baton");
  std::this_thread::sleep_for(300ms);
  auto ended = own.request("POST", "/db/shop/v2/pipeline", pipeline(baton, "COMMIT", true));
  ASSERT_TRUE(ended);
  EXPECT_EQ(ended->status, 200) << ended->body;
  EXPECT_NE(ended->body.find("\"type\":\"ok\""), std::string::npos) << ended->body;
  other.join();
  EXPECT_TRUE(
      within(10s, [&] { return nodes_[1]->query("shop", "SELECT count(*) FROM t") == "[[1]]"; }));
}

TEST_F(ClusterClients, AnInteractiveTransactionThatTakesTooLongEndsForSure) {
  ASSERT_EQ(switch_to("n1"), "n1");
  HttpConnection own(nodes_[0]->port());
  auto begun = own.request("POST", "/db/shop/v2/pipeline", pipeline("", "BEGIN IMMEDIATE"));
  ASSERT_TRUE(begun);
  auto written =
      own.request("POST", "/db/shop/v2/pipeline",
                  pipeline(json_field(begun->body, "baton"), "INSERT INTO t VALUES('x', 1)"));
  ASSERT_TRUE(written);
  EXPECT_EQ(switch_to("n2"), "n2");
  auto ended = own.request("POST", "/db/shop/v2/pipeline",
                           pipeline(json_field(written->body, "baton"), "COMMIT", true));
  ASSERT_TRUE(ended);
  EXPECT_NE(ended->status, 200) << ended->body;
  EXPECT_EQ(ended->body.find("UNKNOWN"), std::string::npos) << ended->body;
  EXPECT_EQ(nodes_[1]->query("shop", "SELECT count(*) FROM t"), "[[0]]");
}

// The example of docs/guides/blue-green.md; nodes answer reads with what they have.
TEST_F(ClusterClients, TwoVersionsOfAServiceAndTheirUsers) {
  std::thread switches([this] {
    for (int i = 0; i < 5; ++i) {
      std::this_thread::sleep_for(100ms);
      nodes_[0]->run({"cluster", "switchover"});
    }
  });
  const Finished done = run_program(
      {"python3", test_script("../examples/blue_green.py"), nodes_[1]->url(), nodes_[2]->url()});
  switches.join();
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_NE(done.out.find("each saw all that he did"), std::string::npos) << done.out;
}

// Files of the sqllogictest project (OFFPRINT_SLT names a folder of them), and one of ours:
// statements to any node, queries to those that follow too, and another primary every other second.
TEST_F(ClusterClients, SqlLogicTestThroughSwitches) {
  std::vector<std::string> command{
      "python3", test_script("interop/slt/run.py"), "--write", "", "--read", "", "--switch-every",
      "2"};
  for (auto& node : nodes_) command[3] += (command[3].empty() ? "" : ",") + node->url();
  command[5] = command[3];
  command.push_back(test_script("interop/slt/own.test"));
  if (const char* folder = std::getenv("OFFPRINT_SLT")) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().extension() == ".test") command.push_back(entry.path());
    }
  }
  const Finished done = run_program(command, {}, {}, 800);
  EXPECT_EQ(done.exit_code, 0) << done.out << done.err;
  EXPECT_NE(done.out.find(" 0 wrong"), std::string::npos) << done.out;
}

class ClusterReads : public ClusterServers {
 protected:
  void SetUp() override {
    reads_ = "primary";
    ClusterServers::SetUp();
  }
};

// A client that knows of no bookmarks, at another node with each request.
TEST_F(ClusterReads, WhatWasWrittenIsReadThroughAnyNode) {
  start_all();
  for (std::size_t i = 0; i < 300; ++i) {
    nodes_[i % 3]->query("shop", fmt::format("INSERT INTO t VALUES('{}', 1)", i));
    ASSERT_EQ(nodes_[(i + 1) % 3]->query("shop", "SELECT count(*) FROM t"),
              fmt::format("[[{}]]", i + 1));
    if (i % 100 == 50) ASSERT_EQ(nodes_[0]->run({"cluster", "switchover"}).exit_code, 0);
  }
  // Who does not ask for the newest gets what the node has.
  const std::size_t other = (primary() + 1) % 3;
  HttpConnection connection(nodes_[other]->port(), 20);
  auto answer = connection.request("POST", "/db/shop/query", R"({"sql":"SELECT 1"})",
                                   "Offprint-Read: any\r\n");
  ASSERT_TRUE(answer && answer->status == 200);
  EXPECT_NE(answer->head.find(fmt::format("Offprint-Served-By: n{}", other + 1)), std::string::npos)
      << answer->head;
}

}  // namespace
}  // namespace offprint::testing
