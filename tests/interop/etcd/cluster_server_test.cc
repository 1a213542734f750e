#include "tests/interop/etcd/cluster_servers.h"

namespace offprint::testing {
namespace {

class ClusterServersTest : public ClusterServers {
 protected:
  void SetUp() override {
    ClusterServers::SetUp();
    start_all();
  }
};

TEST_F(ClusterServersTest, WhoIsKilledCostsNoAcknowledgedWrite) {
  begin_load(6);
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(1s);
    const std::size_t victim = round == 2 ? (primary() + 1) % 3 : primary();
    nodes_[victim]->kill();
    std::this_thread::sleep_for(3s);
    ASSERT_TRUE(nodes_[victim]->start());
  }
  end_load();
  fmt::print("{} acknowledged, longest pause {} ms\n", acknowledged_.size(), longest_pause_ms());
  check();
}

TEST_F(ClusterServersTest, NodesStopInOrderOneAfterTheOther) {
  begin_load(6);
  for (auto& node : nodes_) {
    std::this_thread::sleep_for(1s);
    EXPECT_EQ(node->terminate(), 0);
    ASSERT_TRUE(node->start());
  }
  end_load();
  fmt::print("{} acknowledged, longest pause {} ms\n", acknowledged_.size(), longest_pause_ms());
  for (const auto& [answer, times] : refused_) fmt::print("{} times: {}\n", times, answer);
  check();
}

TEST_F(ClusterServersTest, WithEtcdAwayTheyGoOn) {
  etcd_.kill(0);
  begin_load(3);
  std::this_thread::sleep_for(4s);
  end_load();
  EXPECT_TRUE(refused_.empty()) << refused_.begin()->first;
  EXPECT_LT(longest_pause_ms(), 1'000);
  etcd_.start(0);
  check();
}

// What a proxy before the nodes asks.
class ClusterReadyTest : public ClusterServers {
 protected:
  void SetUp() override {
    reads_ = "primary";
    ClusterServers::SetUp();
    start_all();
  }
  static bool is_ready(ServerProcess& node) {
    auto answer = node.request("GET", "/health?ready=1");
    return answer && answer->status == 200;
  }
};

TEST_F(ClusterReadyTest, ANodeIsReadyWhileAPrimaryCanWrite) {
  for (auto& node : nodes_) EXPECT_TRUE(is_ready(*node));
  const std::size_t first = primary(), second = (first + 1) % 3, third = (first + 2) % 3;
  nodes_[first]->kill();
  nodes_[second]->query("shop", "INSERT INTO t VALUES('a', 1)");
  EXPECT_TRUE(is_ready(*nodes_[second]));
  EXPECT_TRUE(is_ready(*nodes_[third]));
  nodes_[third]->kill();  // too few are left
  EXPECT_TRUE(within(30s, [&] { return !is_ready(*nodes_[second]); }));
  ASSERT_TRUE(nodes_[third]->start());
  EXPECT_TRUE(within(30s, [&] { return is_ready(*nodes_[second]) && is_ready(*nodes_[third]); }));
}

TEST_F(ClusterServersTest, AFolderIsOfOneNode) {
  nodes_[0]->kill();
  const Finished other = refused(nodes_[0]->data(), "n9");
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_NE(other.err.find("is the folder of node n1 of cluster test"), std::string::npos)
      << other.err;
  Finished alone =
      run_program({program(), "serve", "--data", nodes_[0]->data(), "--listen", "127.0.0.1:0"});
  EXPECT_EQ(alone.exit_code, 1);
  EXPECT_NE(alone.err.find("--cluster test --node n1"), std::string::npos) << alone.err;
}

}  // namespace
}  // namespace offprint::testing
