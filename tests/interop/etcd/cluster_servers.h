#pragma once

#include <algorithm>
#include <atomic>
#include <map>
#include <set>
#include <thread>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/interop/etcd/etcd_cluster.h"
#include "tests/server_process.h"

// For tests: nodes of a cluster as people run them, with stock etcd.
namespace offprint::testing {

using namespace std::chrono_literals;

class ClusterServers : public ::testing::Test {
 protected:
  void SetUp() override {
    etcd_.wait_ready();
    for (int n = 0; n < 3; ++n) make_node(n);
  }
  void make_node(int n, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments{"--cluster",     "test",
                                       "--node",        fmt::format("n{}", n + 1),
                                       "--peer-listen", fmt::format("127.0.0.1:{}", free_port()),
                                       "--etcd",        etcd_.client_url(0),
                                       "--reads",       reads_};
    arguments.insert(arguments.end(), more.begin(), more.end());
    auto node = std::make_unique<ServerProcess>(folders_[n], std::move(arguments));
    node->set_port(free_port());
    nodes_.resize(std::max(nodes_.size(), static_cast<std::size_t>(n) + 1));
    nodes_[static_cast<std::size_t>(n)] = std::move(node);
  }
  // A node of that name with that folder, which is refused.
  Finished refused(const std::string& data, const std::string& name) {
    return run_program({program(), "serve", "--data", data, "--listen",
                        fmt::format("127.0.0.1:{}", free_port()), "--cluster", "test", "--node",
                        name, "--etcd", etcd_.client_url(0), "--peer-listen", "127.0.0.1:0"});
  }
  void start_all() {
    for (auto& node : nodes_) ASSERT_TRUE(node->start());
    nodes_[0]->create("shop");
    wait_in_sync(3);
    nodes_[1]->query("shop", "CREATE TABLE t(id TEXT, at)");  // passed on to the primary
  }
  void wait_in_sync(std::size_t count) {
    ASSERT_TRUE(within(60s, [&] { return in_sync(*nodes_[0]) == count; }));
  }
  template <class Done>
  static bool within(std::chrono::seconds time, Done done) {
    for (Deadline until = SteadyClock::now() + time; SteadyClock::now() < until;) {
      if (done()) return true;
      std::this_thread::sleep_for(20ms);
    }
    return done();
  }
  static std::size_t in_sync(ServerProcess& node) {
    auto answer = node.request("GET", "/v1/databases/shop");
    if (!answer || answer->status != 200) return 0;
    const std::size_t at = answer->body.find("\"in_sync\":[");
    if (at == std::string::npos) return 0;
    const std::string list = answer->body.substr(at, answer->body.find(']', at) - at);
    return static_cast<std::size_t>(std::ranges::count(list, '"')) / 2 - 1;
  }
  // Which node is primary, as another one says.
  std::size_t primary() {
    for (auto& node : nodes_) {
      if (!node->running()) continue;
      auto answer = node->request("GET", "/v1/databases/shop");
      if (!answer || answer->status != 200) continue;
      const std::string name = json_field(answer->body, "primary");
      if (name.size() == 2) return static_cast<std::size_t>(name[1] - '1');
    }
    return 0;
  }

  // Clients that write, each to one node after the other when that fails.
  void begin_load(int clients) {
    for (int c = 0; c < clients; ++c) clients_.emplace_back([this, c] { write_on(c); });
  }
  void write_on(int client) {
    std::map<std::size_t, std::unique_ptr<HttpConnection>> connections;
    std::size_t which = static_cast<std::size_t>(client) % 3;
    for (int i = 0; !done_; ++i) {
      const std::string id = fmt::format("{}-{}", client, i);
      auto& connection = connections[which];
      if (!connection) connection = std::make_unique<HttpConnection>(nodes_[which]->port(), 20);
      auto answer =
          connection->request("POST", "/db/shop/query",
                              fmt::format("{{\"sql\":\"INSERT INTO t VALUES('{}', {})\"}}", id, i));
      std::lock_guard lock(mutex_);
      const std::int64_t now = std::chrono::steady_clock::now().time_since_epoch() / 1ms;
      if (answer && answer->status == 200) {
        acknowledged_.insert(id);
        answered_ms_.push_back(now);
      } else {
        if (answer) refused_[answer->body.substr(0, 100)] += 1;
        which = (which + 1) % 3;
      }
    }
  }
  void end_load() {
    done_ = true;
    for (std::thread& client : clients_) client.join();
  }
  std::int64_t longest_pause_ms() {
    std::ranges::sort(answered_ms_);
    std::int64_t longest = 0;
    for (std::size_t i = 1; i < answered_ms_.size(); ++i)
      longest = std::max(longest, answered_ms_[i] - answered_ms_[i - 1]);
    return longest;
  }
  std::string what_they_know() {
    std::string text;
    for (auto& node : nodes_) {
      auto cluster = node->request("GET", "/v1/cluster");
      auto database = node->request("GET", "/v1/databases/shop");
      text += (cluster ? cluster->body : "no answer\n") + (database ? database->body : "");
    }
    return text;
  }
  // On all nodes is what was acknowledged, once.
  void check() {
    ASSERT_GT(acknowledged_.size(), 100U);
    const std::string count = "SELECT count(*), count(DISTINCT id) FROM t";
    EXPECT_TRUE(within(30s,
                       [&] {
                         std::set<std::string> counts;
                         for (auto& node : nodes_) counts.insert(node->query("shop", count));
                         return counts.size() == 1;
                       }))
        << "the nodes differ:\n"
        << what_they_know();
    for (auto& node : nodes_) {
      const std::string rows = node->query("shop", "SELECT id FROM t");
      std::size_t lost = 0;
      for (const std::string& id : acknowledged_)
        lost += rows.find("[\"" + id + "\"]") == std::string::npos ? 1 : 0;
      EXPECT_EQ(lost, 0U) << "of " << acknowledged_.size();
      EXPECT_EQ(node->query("shop", "SELECT id FROM t GROUP BY id HAVING count(*) > 1"), "[]");
    }
  }

  std::string reads_ = "any";  // so that tests see what each node has
  EtcdCluster etcd_{1};
  TemporaryFolder folders_[3];
  std::vector<std::unique_ptr<ServerProcess>> nodes_;
  std::atomic<bool> done_ = false;
  std::vector<std::thread> clients_;
  std::mutex mutex_;
  std::set<std::string> acknowledged_;
  std::vector<std::int64_t> answered_ms_;
  std::map<std::string, int> refused_;
};

}  // namespace offprint::testing
