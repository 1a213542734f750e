#include "tests/interop/etcd/cluster_servers.h"

// The archive of a cluster: whoever is primary writes it.
namespace offprint::testing {
namespace {

class ClusterArchive : public ClusterServers {
 protected:
  void SetUp() override {
    ClusterServers::SetUp();
    for (int n = 0; n < 3; ++n)
      make_node(n, {"--archive", url_, "--archive-sync-ms", "20", "--log-level", "info"});
  }
  // What the archive has of the database, restored by command.
  std::string archived_rows() {
    TemporaryFolder scratch(TemporaryFolder::Remove::kAlways);
    const std::string file = scratch / "restored.db";
    Finished done = run_program({program(), "restore", url_ + "/shop", file});
    if (done.exit_code != 0) return done.err;
    StockReader reader(file);
    return reader.query("SELECT count(*), count(DISTINCT id), sum(at) FROM t");
  }
  void expect_archived() {
    const std::string rows =
        nodes_[primary()]->query("shop", "SELECT count(*), count(DISTINCT id), sum(at) FROM t");
    std::string found;
    EXPECT_TRUE(within(30s,
                       [&] {
                         found = archived_rows();
                         std::erase(found, ' ');
                         return found == rows;
                       }))
        << found << " instead of " << rows;
  }

  TemporaryFolder archive_;
  const std::string url_ = "file://" + archive_ / "a";
};

TEST_F(ClusterArchive, WhoeverIsPrimaryGoesOnWithIt) {
  start_all();
  begin_load(4);
  for (int round = 0; round < 4; ++round) {
    std::this_thread::sleep_for(1s);
    const std::size_t victim = primary();
    if (round % 2 == 0) {
      nodes_[victim]->kill();
      std::this_thread::sleep_for(3s);
    } else {
      EXPECT_EQ(nodes_[victim]->terminate(), 0);
    }
    ASSERT_TRUE(nodes_[victim]->start());
  }
  end_load();
  check();
  expect_archived();
  Finished proven = run_program({program(), "verify", url_ + "/shop"});
  EXPECT_EQ(proven.exit_code, 0) << proven.out << proven.err;
  // A past state is read through any node.
  for (auto& node : nodes_) {
    auto history = node->request("GET", "/v1/databases/shop/history?limit=5");
    EXPECT_TRUE(history && history->status == 200) << history->body;
  }
  // Another server does not get it.
  Finished other = run_program({program(), "serve", "--data", archive_ / "other", "--listen",
                                "127.0.0.1:0", "--archive", url_});
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_NE(other.err.find("cluster test"), std::string::npos) << other.err;
}

// The archive has more than the node that is left.
TEST_F(ClusterArchive, AForcedPrimaryGoesOnWithIt) {
  start_all();
  EXPECT_EQ(nodes_[2]->terminate(), 0);
  for (int i = 0; i < 5; ++i) nodes_[0]->query("shop", "INSERT INTO t VALUES('lost', 1)");
  expect_archived();
  nodes_[0]->kill();
  nodes_[1]->kill();
  Finished forced = nodes_[2]->run({"cluster", "failover", "--force", "--data", nodes_[2]->data(),
                                    "--etcd", etcd_.client_url(0)});
  ASSERT_EQ(forced.exit_code, 0) << forced.err;
  ASSERT_TRUE(nodes_[2]->start());
  EXPECT_EQ(nodes_[2]->query("shop", "SELECT count(*) FROM t"), "[[0]]");
  nodes_[2]->query("shop", "INSERT INTO t VALUES('after', 7)");
  expect_archived();
}

}  // namespace
}  // namespace offprint::testing
