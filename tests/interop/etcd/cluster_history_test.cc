#include <filesystem>
#include <random>

#include "tests/interop/etcd/cluster_servers.h"

// Restores in place, forks and tags through any node of a cluster, whose primary is killed.
namespace offprint::testing {
namespace {

class ClusterHistory : public ClusterServers {
 protected:
  static constexpr const char* kCount = "SELECT count(*), count(DISTINCT at), min(at) FROM t";

  std::string bookmark(const std::string& name) {
    auto answer = nodes_[primary()]->request("GET", "/v1/databases/" + name);
    return answer && answer->status == 200 ? json_field(answer->body, "bookmark") : "";
  }
  // As a person does who tries again elsewhere.
  Finished run_at(std::size_t node, std::vector<std::string> arguments) {
    Finished done = nodes_[node]->run(arguments);
    for (int n = 1; done.exit_code != 0 && n < 3; ++n) {
      const std::size_t other = (node + static_cast<std::size_t>(n)) % 3;
      if (nodes_[other]->running()) done = nodes_[other]->run(arguments);
    }
    return done;
  }
  void expect_on_all(const std::string& name, const std::string& sql, const std::string& rows) {
    for (auto& node : nodes_) {
      if (!node->running()) continue;
      std::string found;
      EXPECT_TRUE(within(20s,
                         [&] {
                           auto answer = node->request("POST", "/db/" + name + "/query",
                                                       "{\"sql\":\"" + sql + "\"}");
                           found = answer ? answer->body : "no answer";
                           return found.find("\"rows\":" + rows) != std::string::npos;
                         }))
          << found << " instead of " << rows;
    }
  }
  void fill(const std::string& name, int rows, int at) {
    nodes_[primary()]->query(name,
                             fmt::format("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                                         "WHERE i < {}) INSERT INTO t SELECT hex(randomblob(1500)),"
                                         " {} FROM n",
                                         rows, at));
  }
  void restart_all_dead() {
    for (auto& node : nodes_) {
      if (!node->running()) ASSERT_TRUE(node->start());
    }
    wait_in_sync(3);
  }
};

TEST_F(ClusterHistory, RestoresAndForksGoThroughAnyNode) {
  start_all();
  fill("shop", 3, 1);
  const std::string before = bookmark("shop");
  TemporaryFolder folder;
  FollowerProcess replica(folder, nodes_[2]->database_url("shop"), folder / "replica.db");
  replica.start();
  fill("shop", 4, 2);
  const std::string after = bookmark("shop");
  for (std::size_t n = 0; n < 3; ++n) {
    Finished restored = nodes_[n]->run({"db", "restore", "shop", "--at", before});
    ASSERT_EQ(restored.exit_code, 0) << restored.err;
    expect_on_all("shop", kCount, "[[3,1,1]]");
    Finished forked = nodes_[n]->run({"db", "fork", "shop", fmt::format("f{}", n), "--at", after});
    ASSERT_EQ(forked.exit_code, 0) << forked.err;
    expect_on_all(fmt::format("f{}", n), kCount, "[[7,2,1]]");
    Finished undone = nodes_[n]->run({"db", "restore", "shop", "--at", after});
    ASSERT_EQ(undone.exit_code, 0) << undone.err;
    expect_on_all("shop", kCount, "[[7,2,1]]");
  }
  const std::size_t victim = primary();
  nodes_[victim]->kill();
  const std::size_t other = (victim + 1) % 3;
  Finished restored = run_at(other, {"db", "restore", "shop", "--at", before});
  ASSERT_EQ(restored.exit_code, 0) << restored.err;
  Finished forked = run_at(other, {"db", "restore", "shop", "--at", after, "--to", "copy"});
  ASSERT_EQ(forked.exit_code, 0) << forked.err;
  nodes_[other]->query("f1", "INSERT INTO t VALUES('x', 3)");
  restart_all_dead();
  expect_on_all("shop", kCount, "[[3,1,1]]");
  expect_on_all("copy", kCount, "[[7,2,1]]");
  expect_on_all("f1", kCount, "[[8,3,1]]");
  expect_soon(replica.file(), "SELECT count(*) FROM t", "[[3]]");
  nodes_[victim]->query("shop", "INSERT INTO t VALUES('x', 3)");
  expect_soon(replica.file(), "SELECT count(*) FROM t", "[[4]]");
  EXPECT_EQ(replica.terminate(), 0);
}

// Also the tags of the time when the first node was alone; a node that lost its disk gets them, and
// what is made of the archive.
TEST_F(ClusterHistory, TagsAreOnAllNodes) {
  {
    ServerProcess alone(folders_[0]);
    ASSERT_TRUE(alone.start());
    alone.create("shop");
    alone.query("shop", "CREATE TABLE t(id TEXT, at)");
    alone.query("shop", "INSERT INTO t VALUES('x', 1)");
    EXPECT_EQ(alone.run({"db", "snapshot", "shop", "--tag", "alone"}).exit_code, 0);
    EXPECT_EQ(alone.terminate(), 0);
  }
  TemporaryFolder archive;
  const std::string url = "file://" + archive / "a";
  for (int n = 0; n < 3; ++n) make_node(n, {"--archive", url, "--archive-sync-ms", "20"});
  for (auto& node : nodes_) ASSERT_TRUE(node->start());
  wait_in_sync(3);
  fill("shop", 1500, 2);
  Finished tagged = nodes_[1]->run({"db", "snapshot", "shop", "--tag", "three"});
  ASSERT_EQ(tagged.exit_code, 0) << tagged.err;
  Finished forked = nodes_[2]->run({"db", "fork", "shop", "branch"});
  ASSERT_EQ(forked.exit_code, 0) << forked.err;
  nodes_[0]->query("branch", "INSERT INTO t VALUES('x', 3)");
  nodes_[2]->query("shop", "DELETE FROM t");
  auto tags_at = [&](std::size_t n) {
    Finished listed = nodes_[n]->run({"db", "snapshot", "shop"});
    return listed.out.contains("alone") && listed.out.contains("three") ? std::string()
                                                                        : listed.out + listed.err;
  };
  for (std::size_t n = 0; n < 3; ++n) EXPECT_EQ(tags_at(n), "");
  nodes_[0]->kill();  // the one that had the file
  std::filesystem::remove_all(nodes_[0]->data());
  EXPECT_TRUE(within(20s, [&] { return primary() != 0; }));
  restart_all_dead();
  EXPECT_EQ(tags_at(0), "");
  // What it was given is what the others have.
  Finished moved;
  EXPECT_TRUE(within(30s,
                     [&] {
                       moved = nodes_[1]->run({"cluster", "switchover", "n1"});
                       return primary() == 0;
                     }))
      << moved.out << moved.err;
  for (const auto& [tag, rows] :
       {std::pair("tag:three", "[[1501,2,1]]"), std::pair("tag:alone", "[[1,1,1]]")}) {
    Finished restored = nodes_[2]->run({"db", "restore", "shop", "--at", tag});
    ASSERT_EQ(restored.exit_code, 0) << restored.err;
    expect_on_all("shop", kCount, rows);
  }
  std::this_thread::sleep_for(1s);  // the archive's turn comes every 20 ms
  for (auto& node : nodes_) EXPECT_EQ(node->terminate(), 0);
  Finished proven = run_program({program(), "verify", url + "/branch"});
  EXPECT_EQ(proven.exit_code, 0) << proven.out << proven.err;
  Finished again = run_program({program(), "restore-node", url, archive / "data"});
  ASSERT_EQ(again.exit_code, 0) << again.out << again.err;
  EXPECT_FALSE((again.out + again.err).contains("tag")) << again.out << again.err;
  TemporaryFolder folder;
  std::filesystem::rename(archive / "data", folder / "data");
  ServerProcess alone(folder);
  ASSERT_TRUE(alone.start());
  Finished restored = alone.run({"db", "restore", "shop", "--at", "tag:three"});
  EXPECT_EQ(restored.exit_code, 0) << restored.err;
  EXPECT_EQ(alone.query("shop", kCount), "[[1501,2,1]]");
  EXPECT_EQ(alone.query("branch", kCount), "[[1502,3,1]]");
  Finished dropped = alone.run({"db", "snapshot", "shop", "--drop", "alone"});
  EXPECT_EQ(dropped.exit_code, 0) << dropped.err;
  EXPECT_TRUE(alone.restart());
  EXPECT_TRUE(alone.run({"db", "snapshot", "shop"}).out.contains("three"));
}

// kill -9 while 6 MB go through the log: all of it, or nothing.
TEST_F(ClusterHistory, NothingIsHalfThereWhenThePrimaryIsKilled) {
  start_all();
  fill("shop", 2000, 1);
  const std::string before = bookmark("shop");
  nodes_[1]->query("shop", "UPDATE t SET at = 2, id = hex(randomblob(1500))");
  std::string now = "[[2000,1,2]]";
  std::mt19937_64 random(5);
  int done = 0, there = 0;
  for (int round = 0; round < 6; ++round) {
    const std::size_t victim = primary();
    const std::string fork = fmt::format("fork{}", round);
    const bool forks = round % 2 == 0;
    Finished ended;
    std::thread asking([&, node = nodes_[(victim + 1) % 3].get()] {
      ended = forks ? node->run({"db", "fork", "shop", fork})
                    : node->run({"db", "restore", "shop", "--at", before});
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50 + random() % 1000));
    nodes_[victim]->kill();
    asking.join();
    restart_all_dead();
    done += ended.exit_code == 0 ? 1 : 0;
    if (forks) {
      auto status_at = [&](auto& node) {
        auto answer = node->request("GET", "/v1/databases/" + fork);
        return answer && !answer->body.contains("DATABASE_FILLING") ? answer->status : 0;
      };
      std::set<int> seen;
      EXPECT_TRUE(within(30s, [&] {
        seen.clear();
        for (auto& node : nodes_) seen.insert(status_at(node));
        return seen.size() == 1 && !seen.contains(0);
      }));
      const bool is_there = seen.contains(200);
      EXPECT_TRUE(is_there || ended.exit_code != 0);
      if (is_there) expect_on_all(fork, kCount, now);
      there += is_there ? 1 : 0;
    } else {
      const std::string found = nodes_[primary()]->query("shop", kCount);
      EXPECT_TRUE(found == "[[2000,1,1]]" || (found == now && ended.exit_code != 0)) << found;
      expect_on_all("shop", kCount, found);
      if (found == "[[2000,1,1]]") {  // and changed again
        nodes_[0]->query("shop", "UPDATE t SET at = 2, id = hex(randomblob(1500))");
        now = "[[2000,1,2]]";
      }
    }
    expect_on_all("shop", "PRAGMA integrity_check", "[[\"ok\"]]");
  }
  fmt::print("{} commands answered, {} forks there\n", done, there);
}

}  // namespace
}  // namespace offprint::testing
