#include <fstream>

#include "tests/interop/etcd/cluster_servers.h"

// What databases of a cluster publish: whoever is primary keeps it, and any node gives it.
namespace offprint::testing {
namespace {

constexpr const char* kDefinition =
    "CREATE PUBLICATION parity(odd INTEGER) AS TABLE t(id, odd, at) WHERE odd = :odd,\n"
    "  VIEW counts(odd, n) KEY(odd) AS SELECT odd, count(*) FROM t WHERE odd = :odd GROUP BY odd\n";

class ClusterPublications : public ClusterServers {
 protected:
  void start_and_publish() {
    for (auto& node : nodes_) ASSERT_TRUE(node->start());
    nodes_[0]->create("shop");
    wait_in_sync(3);
    nodes_[2]->query("shop",
                     "CREATE TABLE t(id TEXT PRIMARY KEY, odd INTEGER, at INTEGER, secret TEXT)");
    nodes_[2]->query("shop", "CREATE INDEX t_odd ON t(odd)");
    const std::string file = definitions_ / "parity.sql";
    std::ofstream(file) << kDefinition;
    const Finished done = nodes_[1]->run({"publish", "create", "shop", file});
    ASSERT_EQ(done.exit_code, 0) << done.err;
  }
  std::string address(std::size_t node, int odd) const {
    return fmt::format("{}/db/shop/pub/parity@v1?odd={}", nodes_[node]->url(), odd);
  }
  void follow(std::size_t node, int odd) {
    const std::size_t n = followers_.size();
    followers_.push_back({odd, std::make_unique<FollowerProcess>(copies_[n], address(node, odd),
                                                                 copies_[n] / "copy.db")});
    followers_.back().process->start();
  }
  // Each follower's file has just what the database says now.
  void expect_all_follow() {
    for (const auto& each : followers_) {
      const std::string sql = fmt::format(
          "SELECT count(*), count(DISTINCT id), total(at) FROM t WHERE odd = {}", each.odd);
      const std::string rows = nodes_[primary()]->query("shop", sql);
      expect_soon(each.process->file(), "SELECT count(*), count(DISTINCT id), total(at) FROM t",
                  rows);
      expect_soon(each.process->file(), "SELECT n = (SELECT count(*) FROM t) FROM counts", "[[1]]");
      EXPECT_TRUE(each.process->running()) << each.process->log();
    }
  }
  void write(int from, int to) {
    for (int i = from; i < to; ++i) {
      nodes_[static_cast<std::size_t>(i) % 3]->query(
          "shop", fmt::format("INSERT INTO t VALUES('w{}', {}, {}, 'SECRET')", i, i % 2, i));
    }
  }

  struct Follower {
    int odd = 0;
    std::unique_ptr<FollowerProcess> process;
  };
  TemporaryFolder definitions_, copies_[6];
  std::vector<Follower> followers_;
};

TEST_F(ClusterPublications, GoOnWithWhoeverIsPrimary) {
  start_and_publish();
  if (HasFailure()) return;
  for (std::size_t node = 0; node < 3; ++node) {
    follow(node, 0);
    follow(node, 1);
  }
  write(0, 40);
  expect_all_follow();
  // A planned switch: nobody has to connect anew.
  for (std::size_t round = 1; round <= 3; ++round) {
    const std::size_t to = (primary() + 1) % 3;
    const Finished done = nodes_[0]->run({"cluster", "switchover", fmt::format("n{}", to + 1)});
    ASSERT_EQ(done.exit_code, 0) << done.err;
    const int from = static_cast<int>(round) * 40;
    write(from, from + 40);
    expect_all_follow();
  }
  for (auto& each : followers_)
    EXPECT_EQ(each.process->log().find("reconnect"), std::string::npos) << each.process->log();
  // The one that keeps them is killed; those that follow at it wait for it to come back.
  const std::size_t victim = primary();
  nodes_[victim]->kill();
  nodes_[(victim + 1) % 3]->query("shop", "UPDATE t SET odd = 1 - odd WHERE id LIKE 'w1%'");
  nodes_[(victim + 2) % 3]->query("shop", "DELETE FROM t WHERE id LIKE 'w2%'");
  ASSERT_TRUE(nodes_[victim]->start());
  write(160, 200);
  expect_all_follow();
  for (auto& each : followers_) {
    EXPECT_EQ(each.process->terminate(), 0);
    EXPECT_EQ(file_text(each.process->file()).find("SECRET"), std::string::npos);
  }
}

TEST_F(ClusterPublications, AnyNodeAnswersForThem) {
  start_and_publish();
  if (HasFailure()) return;
  write(0, 10);
  for (int round = 0; round < 2; ++round) {
    for (auto& node : nodes_) {
      auto answer = node->request("POST", "/db/shop/pub/parity/query?odd=1",
                                  R"({"sql":"SELECT n FROM counts"})");
      ASSERT_TRUE(answer && answer->status == 200) << (answer ? answer->body : "");
      EXPECT_NE(answer->body.find("[[5]]"), std::string::npos) << answer->body;
      answer = node->request("POST", "/db/shop/pub/parity/query?odd=x",
                             R"({"sql":"SELECT n FROM counts"})");
      EXPECT_TRUE(answer && answer->status == 400) << (answer ? answer->body : "");
      answer = node->request("POST", "/db/shop/pub/other/query", R"({"sql":"SELECT 1"})");
      EXPECT_TRUE(answer && answer->status == 404) << (answer ? answer->body : "");
      // What would break it is refused, whoever is primary and for however long.
      answer = node->request("POST", "/db/shop/query", R"({"sql":"ALTER TABLE t DROP COLUMN at"})");
      EXPECT_TRUE(answer && answer->body.find("PUBLICATION_BROKEN") != std::string::npos);
      answer = node->request("GET", "/v1/cluster/instance?of=shop%2Fpub%2Fparity%3Fodd%3D1");
      EXPECT_TRUE(answer && answer->status == 403) << (answer ? answer->body : "");
    }
    const std::size_t to = (primary() + 1) % 3;
    ASSERT_EQ(nodes_[0]->run({"cluster", "switchover", fmt::format("n{}", to + 1)}).exit_code, 0);
  }
  // Dropped on one, it is gone on all.
  ASSERT_EQ(nodes_[1]->run({"publish", "drop", "shop", "parity"}).exit_code, 0);
  for (auto& node : nodes_) {
    EXPECT_TRUE(within(10s, [&] {
      auto answer = node->request("POST", "/db/shop/pub/parity/query?odd=1",
                                  R"({"sql":"SELECT n FROM counts"})");
      return answer && answer->status == 404;
    }));
  }
}

}  // namespace
}  // namespace offprint::testing
