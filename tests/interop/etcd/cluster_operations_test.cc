#include <filesystem>
#include <fstream>

#include "tests/interop/etcd/cluster_servers.h"

// What those do who look after a cluster: `offprint cluster`, and stock etcd.
namespace offprint::testing {
namespace {

class ClusterOperations : public ClusterServers {
 protected:
  Finished leave(const ServerProcess& node) {
    return node.run({"cluster", "leave", "--data", node.data(), "--etcd", etcd_.client_url(0)});
  }
  Finished force(const ServerProcess& node) {
    return node.run(
        {"cluster", "failover", "--force", "--data", node.data(), "--etcd", etcd_.client_url(0)});
  }
  // The node, which is stopped, is one of the cluster no more.
  void remove(std::size_t n, ServerProcess& through) {
    Finished done;
    EXPECT_TRUE(within(30s, [&] {
      done = through.run({"cluster", "remove", fmt::format("n{}", n + 1)});
      return done.exit_code == 0;
    })) << done.err;
  }
  void write_some(ServerProcess& node, const std::string& prefix, int count) {
    for (int i = 0; i < count; ++i) {
      const std::string id = fmt::format("{}-{}", prefix, i);
      node.query("shop", fmt::format("INSERT INTO t VALUES('{}', {})", id, i));
      acknowledged_.insert(id);
    }
  }
  static std::string bookmark_of(ServerProcess& node) {
    auto answer = node.request("GET", "/v1/databases/shop");
    return answer ? json_field(answer->body, "bookmark") : "none";
  }
  static std::optional<HttpConnection::Answer> read_at(ServerProcess& node,
                                                       const std::string& bookmark) {
    HttpConnection connection(node.port(), 20);
    return connection.request("POST", "/db/shop/query", R"({"sql":"SELECT count(*) FROM t"})",
                              "Offprint-Bookmark: " + bookmark + "\r\n");
  }
  // As many transactions of `shop`, which a forced failover has cut; the newest has that bookmark.
  static void expect_kept(const ServerProcess& node, std::size_t count, const std::string& newest) {
    std::size_t lists = 0;
    for (const auto& folder : std::filesystem::directory_iterator(node.data() + "/lost")) {
      ++lists;
      std::ifstream list(folder.path() / "list.ndjson");
      std::vector<std::string> lines;
      for (std::string line; std::getline(list, line);) {
        lines.push_back(line);
        EXPECT_EQ(json_field(line, "database"), "shop") << line;
        std::ifstream file(folder.path() / json_field(line, "file"), std::ios::binary);
        std::string magic(4, '\0');
        file.read(magic.data(), 4);
        EXPECT_EQ(magic, "LTX1") << line;
      }
      ASSERT_EQ(lines.size(), count) << folder.path();
      EXPECT_EQ(json_field(lines.back(), "bookmark"), newest);
    }
    EXPECT_EQ(lists, 1U) << node.log();
  }
};

TEST_F(ClusterOperations, OneNodeIsThreeAndOneAgain) {
  start_all();
  begin_load(3);
  std::this_thread::sleep_for(1s);
  end_load();
  check();
  const std::string bookmark = bookmark_of(*nodes_[0]);
  Finished status = nodes_[2]->run({"cluster", "status"});
  EXPECT_EQ(status.exit_code, 0) << status.err;
  EXPECT_NE(status.out.find("a commit is on 2 at least"), std::string::npos) << status.out;
  Finished looked = nodes_[2]->run({"doctor", "--etcd", etcd_.client_url(0)});
  EXPECT_EQ(looked.exit_code, 0) << looked.out << looked.err;
  for (const char* check : {"ok       etcd", "ok       n1", "ok       n2", "ok       n3",
                            "3 in sync, a commit is on 2 at least"})
    EXPECT_NE(looked.out.find(check), std::string::npos) << looked.out;
  if (primary() != 0) {
    Finished switched = nodes_[1]->run({"cluster", "switchover", "n1"});
    EXPECT_EQ(switched.exit_code, 0) << switched.err;
  }
  Finished refused = nodes_[0]->run({"cluster", "remove", "n3"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.err.find("stop it"), std::string::npos) << refused.err;
  EXPECT_EQ(nodes_[2]->terminate(), 0);
  remove(2, *nodes_[0]);
  EXPECT_NE(leave(*nodes_[0]).exit_code, 0) << "it runs";
  EXPECT_EQ(nodes_[0]->terminate(), 0);
  refused = leave(*nodes_[0]);
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.err.find("n2"), std::string::npos) << refused.err;
  ASSERT_TRUE(nodes_[0]->start());
  wait_in_sync(2);
  if (primary() != 0) nodes_[1]->run({"cluster", "switchover", "n1"});
  EXPECT_EQ(nodes_[1]->terminate(), 0);
  write_some(*nodes_[0], "with-one", 20);
  remove(1, *nodes_[0]);
  nodes_[0]->kill();
  Finished left = leave(*nodes_[0]);
  ASSERT_EQ(left.exit_code, 0) << left.err;
  EXPECT_NE(leave(*nodes_[0]).exit_code, 0) << "it has left";
  {
    ServerProcess alone(folders_[0]);
    ASSERT_TRUE(alone.start());
    auto answer = read_at(alone, bookmark);
    EXPECT_TRUE(answer && answer->status == 200) << answer->body;
    auto history = alone.request("GET", "/v1/databases/shop/history?limit=100");
    EXPECT_TRUE(history && std::ranges::count(history->body, '{') > 20) << history->body;
    write_some(alone, "alone", 20);
    alone.kill();
    ASSERT_TRUE(alone.restart());
    write_some(alone, "again", 20);
    EXPECT_EQ(alone.terminate(), 0);
  }
  // The same cluster once more; the others come with what they had.
  ASSERT_TRUE(nodes_[0]->start());
  write_some(*nodes_[0], "anew", 20);
  ASSERT_TRUE(nodes_[1]->start()) << nodes_[1]->log();
  ASSERT_TRUE(nodes_[2]->start()) << nodes_[2]->log();
  wait_in_sync(3);
  write_some(*nodes_[2], "three", 20);
  check();
}

TEST_F(ClusterOperations, ANodeLeftAloneIsForced) {
  start_all();
  write_some(*nodes_[0], "first", 120);
  ASSERT_TRUE(
      within(10s, [&] { return nodes_[2]->query("shop", "SELECT count(*) FROM t") == "[[120]]"; }));
  EXPECT_EQ(nodes_[2]->terminate(), 0);
  // Nobody but the two has these.
  for (int i = 0; i < 5; ++i)
    nodes_[0]->query("shop", fmt::format("INSERT INTO t VALUES('lost-{}', {})", i, i));
  const std::string lost = bookmark_of(*nodes_[0]);
  nodes_[0]->kill();
  nodes_[1]->kill();
  Finished forced = force(*nodes_[2]);
  ASSERT_EQ(forced.exit_code, 0) << forced.err;
  ASSERT_TRUE(nodes_[2]->start());
  EXPECT_NE(nodes_[2]->run({"cluster", "status"}).out.find("the last failover was forced"),
            std::string::npos);
  write_some(*nodes_[2], "after", 10);
  EXPECT_EQ(nodes_[2]->query("shop", "SELECT count(*) FROM t"), "[[130]]");
  auto answer = read_at(*nodes_[2], lost);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 409) << answer->body;
  // Those that come back have no other history.
  for (std::size_t n : {0U, 1U}) ASSERT_TRUE(nodes_[n]->start()) << nodes_[n]->log();
  ASSERT_TRUE(within(60s, [&] { return in_sync(*nodes_[2]) == 3; })) << nodes_[0]->log();
  check();
  for (auto& node : nodes_) EXPECT_EQ(node->query("shop", "SELECT count(*) FROM t"), "[[130]]");
  for (std::size_t n : {0U, 1U}) expect_kept(*nodes_[n], 5, lost);
  EXPECT_FALSE(std::filesystem::exists(nodes_[2]->data() + "/lost"));
}

// All that etcd knew is gone. The node with the longest log begins the cluster again.
TEST_F(ClusterOperations, AnEtcdThatWasLostIsNotTheEnd) {
  start_all();
  write_some(*nodes_[0], "first", 120);
  for (auto& node : nodes_) node->kill();
  EtcdCluster other{1};
  other.wait_ready();
  auto leave_with = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments{"cluster",         "leave",  "--data",
                                       nodes_[1]->data(), "--etcd", other.client_url(0)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return nodes_[1]->run(arguments);
  };
  Finished refused = leave_with({});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.err.find("the log here ends with record"), std::string::npos) << refused.err;
  Finished left = leave_with({"--force"});
  ASSERT_EQ(left.exit_code, 0) << left.err;
  for (int n : {1, 0, 2}) {
    nodes_[static_cast<std::size_t>(n)]->set_options(
        {"--cluster", "test", "--node", fmt::format("n{}", n + 1), "--peer-listen",
         fmt::format("127.0.0.1:{}", free_port()), "--etcd", other.client_url(0)});
    ASSERT_TRUE(nodes_[static_cast<std::size_t>(n)]->start());
  }
  wait_in_sync(3);
  write_some(*nodes_[2], "second", 20);
  check();
}

// Whoever has all of a log that was left has not what comes after.
TEST_F(ClusterOperations, OneThatLeftWithoutAWriteGoesOnAlone) {
  {
    ServerProcess alone(folders_[0]);
    ASSERT_TRUE(alone.start());
    alone.create("shop");
    alone.query("shop", "CREATE TABLE t(id TEXT, at)");
    write_some(alone, "before", 120);
    EXPECT_EQ(alone.terminate(), 0);
  }
  ASSERT_TRUE(nodes_[0]->start());
  ASSERT_TRUE(nodes_[1]->start());
  wait_in_sync(2);
  EXPECT_EQ(nodes_[1]->terminate(), 0);
  remove(1, *nodes_[0]);
  EXPECT_EQ(nodes_[0]->terminate(), 0);
  std::string owner = file_text(nodes_[0]->data() + "/node");
  ASSERT_EQ(leave(*nodes_[0]).exit_code, 0);
  // As if it had been killed when etcd knew of it.
  owner = owner.substr(0, owner.find(' ', owner.find("test ") + 5));
  while (owner.ends_with('\n')) owner.pop_back();
  std::ofstream(nodes_[0]->data() + "/node") << owner << " leaves\n";
  Finished refused =
      nodes_[0]->run({"serve", "--data", nodes_[0]->data(), "--listen", "127.0.0.1:0"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.err.find("leaving its cluster"), std::string::npos) << refused.err;
  Finished again = leave(*nodes_[0]);
  ASSERT_EQ(again.exit_code, 0) << again.err;
  {
    ServerProcess alone(folders_[0]);
    ASSERT_TRUE(alone.start());
    write_some(alone, "alone", 20);
    EXPECT_EQ(alone.terminate(), 0);
  }
  for (auto& node : nodes_) ASSERT_TRUE(node->start()) << node->log();
  wait_in_sync(3);
  check();
}

// Another one began the cluster: a folder with databases is as it was.
TEST_F(ClusterOperations, AFolderThatCameTooLateStaysASingleNodes) {
  {
    ServerProcess alone(folders_[1]);
    ASSERT_TRUE(alone.start());
    alone.create("shop");
    EXPECT_EQ(alone.terminate(), 0);
  }
  nodes_[1]->begin_start();
  nodes_[0]->begin_start();
  const bool came_late = within(10s, [&] { return !nodes_[1]->running(); });
  if (came_late) {
    nodes_[0]->kill();
    ServerProcess alone(folders_[1]);
    ASSERT_TRUE(alone.start());
    alone.query("shop", "CREATE TABLE t(id)");
  } else {
    EXPECT_TRUE(within(60s, [&] { return in_sync(*nodes_[0]) == 2; }));
  }
}

}  // namespace
}  // namespace offprint::testing
