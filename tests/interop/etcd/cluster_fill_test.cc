#include <csignal>
#include <filesystem>
#include <fstream>
#include <random>

#include "sqlite/connection.h"
#include "tests/interop/etcd/cluster_servers.h"

// Nodes that come to a cluster without its log: new ones, ones that were away too long, and a
// single node that becomes the first of several.
namespace offprint::testing {
namespace {

class ClusterFill : public ClusterServers {
 protected:
  // About 1 MiB each, incompressible.
  void write_blobs(ServerProcess& node, int count) {
    for (int i = 0; i < count; ++i)
      node.query("shop", "INSERT INTO t SELECT 'blob-' || hex(randomblob(8)), randomblob(1048576)");
  }
  static void flip_byte(const std::string& path, std::streamoff at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const int byte = file.get();
    ASSERT_TRUE(file) << path;
    file.seekp(at);
    file.put(static_cast<char>(byte ^ 1));
  }
  // On every node the same content, by its checksum.
  void expect_all_equal(const std::vector<std::string>& databases) {
    for (const std::string& database : databases) {
      std::set<std::string> found;
      EXPECT_TRUE(within(30s,
                         [&] {
                           found.clear();
                           for (auto& node : nodes_) {
                             auto answer = node->request("GET", "/v1/databases/" + database);
                             found.insert(answer ? json_field(answer->body, "bookmark") : "none");
                           }
                           return found.size() == 1 && !found.contains("none");
                         }))
          << database << " is at " << found.size() << " states";
      std::set<std::string> content;
      for (auto& node : nodes_) {
        content.insert(node->query(
            database, "SELECT count(*), sum(length(id)), sum(length(at)), max(at) FROM t"));
        EXPECT_EQ(node->query(database, "PRAGMA integrity_check"), R"([["ok"]])");
      }
      EXPECT_EQ(content.size(), 1U) << database;
    }
  }
};

TEST_F(ClusterFill, ASingleNodeBecomesTheFirstOfThree) {
  std::string bookmark;
  {
    ServerProcess alone(folders_[0]);
    ASSERT_TRUE(alone.start());
    for (const char* name : {"shop", "other", "secret", "empty"}) alone.create(name);
    alone.create("large", R"(,"page_size":512)");
    for (const char* name : {"shop", "other", "large", "secret"})
      alone.query(name, "CREATE TABLE t(id TEXT, at)");
    write_blobs(alone, 5);
    alone.query("large",
                "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) "
                "INSERT INTO t SELECT i, randomblob(3000) FROM n");
    auto blocked =
        alone.request("PATCH", "/v1/databases/secret", R"({"limits":{"reads_blocked":true}})");
    ASSERT_TRUE(blocked && blocked->status == 200) << blocked->body;
    auto answer = alone.request("GET", "/v1/databases/shop");
    bookmark = json_field(answer->body, "bookmark");
    EXPECT_EQ(alone.terminate(), 0);
  }
  ASSERT_TRUE(nodes_[0]->start());
  begin_load(3);
  for (int n : {1, 2})
    ASSERT_TRUE(nodes_[static_cast<std::size_t>(n)]->start()) << nodes_[0]->log();
  wait_in_sync(3);
  std::this_thread::sleep_for(1s);
  end_load();
  check();
  nodes_[2]->query("empty", "CREATE TABLE t(id, at)");
  nodes_[1]->query("other", "INSERT INTO t VALUES('a', 1)");
  expect_all_equal({"shop", "other", "large", "empty"});
  // What was read there before counts on every node.
  for (auto& node : nodes_) {
    HttpConnection connection(node->port());
    auto answer = connection.request("POST", "/db/shop/query", R"({"sql":"SELECT 1"})",
                                     "Offprint-Bookmark: " + bookmark + "\r\n");
    EXPECT_TRUE(answer && answer->status == 200) << answer->body;
  }
  // They are whole without the one that had it.
  nodes_[0]->kill();
  std::filesystem::remove_all(nodes_[0]->data());
  nodes_[1]->query("shop", "INSERT INTO t VALUES('after', 1)");
  ASSERT_TRUE(nodes_[0]->start());
  wait_in_sync(3);
  expect_all_equal({"shop", "other", "large", "empty"});
}

TEST_F(ClusterFill, AFolderOfAnOlderVersionBecomesAClusters) {
  Finished extracted = run_program({"tar", "-xzf", test_script("formats/0.1-catalog-4.tar.gz"),
                                    "-C", folders_[0] / "", "--no-same-owner"});
  ASSERT_EQ(extracted.exit_code, 0) << extracted.err;
  for (auto& node : nodes_) ASSERT_TRUE(node->start());
  for (auto& node : nodes_) {
    EXPECT_EQ(node->query("shop/orders", "SELECT count(*), sum(amount) FROM orders"),
              "[[1990,990721.5]]");
    EXPECT_EQ(node->query("shop/orders", "PRAGMA integrity_check"), R"([["ok"]])");
  }
  nodes_[2]->query("plain", "INSERT INTO t(v) VALUES('three')");
  EXPECT_TRUE(
      within(10s, [&] { return nodes_[1]->query("plain", "SELECT count(*) FROM t") == "[[3]]"; }));
}

TEST_F(ClusterFill, WhoWasAwayTooLongIsFilledAgain) {
  for (int n = 0; n < 3; ++n) make_node(n, {"--log-bytes-max", "1000000"});
  start_all();
  std::this_thread::sleep_for(2s);  // nobody's log is held any more
  const std::size_t away = (primary() + 1) % 3;
  nodes_[away]->kill();
  ServerProcess& other = *nodes_[(away + 1) % 3];
  other.create("gone");
  write_blobs(other, 200);  // more than two segments of the log
  other.create("new");
  other.query("new", "CREATE TABLE t(id, at)");
  (void)other.request("DELETE", "/v1/databases/gone");
  begin_load(2);
  ASSERT_TRUE(nodes_[away]->start());
  EXPECT_NE(nodes_[away]->log().find("filled again"), std::string::npos) << "the log was there";
  wait_in_sync(3);
  end_load();
  expect_all_equal({"shop", "new"});
  check();
}

TEST_F(ClusterFill, WhoStoodStillTooLongIsFilledWhileItRuns) {
  for (int n = 0; n < 3; ++n) make_node(n, {"--log-bytes-max", "1000000"});
  start_all();
  const std::size_t still = (primary() + 1) % 3;
  std::this_thread::sleep_for(2s);  // nobody's log is held any more
  ::kill(nodes_[still]->pid(), SIGSTOP);
  write_blobs(*nodes_[(still + 1) % 3], 200);
  ::kill(nodes_[still]->pid(), SIGCONT);
  begin_load(2);
  EXPECT_TRUE(within(90s, [&] {
    return nodes_[still]->log().find("it is filled again") != std::string::npos;
  })) << nodes_[still]->log();
  EXPECT_TRUE(within(60s, [&] { return in_sync(*nodes_[still]) == 3; }));
  end_load();
  check();
  expect_all_equal({"shop"});
}

TEST_F(ClusterFill, KilledWhileItIsFilledItBeginsAnew) {
  ASSERT_TRUE(nodes_[0]->start());
  ASSERT_TRUE(nodes_[1]->start());
  nodes_[0]->create("shop");
  wait_in_sync(2);
  nodes_[0]->query("shop", "CREATE TABLE t(id TEXT, at)");
  write_blobs(*nodes_[0], 40);
  begin_load(2);
  std::mt19937 random(std::random_device{}());
  for (int round = 0; round < 12; ++round) {
    ServerProcess& node = *nodes_[2];
    node.begin_start();
    std::this_thread::sleep_for(std::chrono::milliseconds(20 + random() % 700));
    node.kill();
  }
  ASSERT_TRUE(nodes_[2]->start());
  wait_in_sync(3);
  end_load();
  check();
  expect_all_equal({"shop"});
}

// Through whichever node; one that follows is killed while it comes, and one is filled.
TEST_F(ClusterFill, ALargeImportIsEverywhere) {
  start_all();
  const TemporaryFolder folder(TemporaryFolder::Remove::kAlways);
  const std::string file = folder / "large.db";
  {
    auto made = sqlite::Connection::open(file, {.create = true});
    ASSERT_TRUE(made && made->execute("CREATE TABLE big(id INTEGER PRIMARY KEY, b)"));
    for (int i = 0; i < 60; ++i)
      ASSERT_TRUE(made->execute("INSERT INTO big(b) VALUES(randomblob(1000000))"));
  }
  const std::size_t at = primary(), follower = (at + 1) % 3, other = (at + 2) % 3;
  EXPECT_EQ(nodes_[other]->terminate(), 0);
  std::filesystem::remove_all(nodes_[other]->data());
  Finished imported;
  std::thread import(
      [&] { imported = nodes_[follower]->run({"db", "import", "large", file}, {}, 120); });
  begin_load(1);
  ASSERT_TRUE(nodes_[other]->start());
  nodes_[other]->kill();
  ASSERT_TRUE(nodes_[other]->start());
  import.join();
  end_load();
  ASSERT_EQ(imported.exit_code, 0) << imported.err;
  for (auto& node : nodes_) {
    EXPECT_TRUE(within(60s, [&] {
      auto answer = node->request("POST", "/db/large/query",
                                  R"({"sql":"SELECT count(*), sum(length(b)) FROM big"})");
      return answer && answer->body.find("[[60,60000000]]") != std::string::npos;
    })) << node->log();
  }
  // Any client is told where to go, before it sends a body.
  HttpConnection connection(nodes_[(primary() + 1) % 3]->port(), 20);
  auto told = connection.request("POST", "/db/again/import", "");
  ASSERT_TRUE(told);
  EXPECT_EQ(told->status, 307) << told->body;
  EXPECT_NE(told->body.find(nodes_[primary()]->url() + "/db/again/import"), std::string::npos)
      << told->body;
}

// A follower, and then the primary, whose journals do not say any more what they said.
TEST_F(ClusterFill, WhoseJournalIsDamagedIsFilledAgain) {
  start_all();
  begin_load(2);
  for (const std::size_t damaged : {(primary() + 1) % 3, primary()}) {
    std::this_thread::sleep_for(500ms);
    nodes_[damaged]->kill();
    flip_byte(nodes_[damaged]->data() + "/journal/0000000000000000.seg", 5'000);
    ASSERT_TRUE(nodes_[damaged]->start()) << nodes_[damaged]->log();
    EXPECT_NE(nodes_[damaged]->log().find("journal is damaged"), std::string::npos);
    EXPECT_TRUE(within(60s, [&] { return in_sync(*nodes_[damaged]) == 3; })) << what_they_know();
  }
  end_load();
  expect_all_equal({"shop"});
  check();
}

TEST_F(ClusterFill, ADamagedFolderThatNobodyElseHasIsLeftAlone) {
  ASSERT_TRUE(nodes_[0]->start());
  nodes_[0]->create("shop");
  nodes_[0]->query("shop", "CREATE TABLE t(id TEXT, at)");
  nodes_[0]->kill();
  const std::string segment = nodes_[0]->data() + "/journal/0000000000000000.seg";
  flip_byte(segment, 5'000);
  const Finished damaged = refused(nodes_[0]->data(), "n1");
  EXPECT_EQ(damaged.exit_code, 1);
  EXPECT_NE(damaged.err.find("no other node has all that it had"), std::string::npos)
      << damaged.err;
  flip_byte(segment, 5'000);
  ASSERT_TRUE(nodes_[0]->start()) << nodes_[0]->log();
  EXPECT_EQ(nodes_[0]->query("shop", "SELECT count(*) FROM t"), "[[0]]");
}

TEST_F(ClusterFill, DatabasesOfTwoFoldersDoNotMix) {
  for (std::size_t n : {0U, 1U}) {
    ServerProcess alone(folders_[n]);
    ASSERT_TRUE(alone.start());
    alone.create(fmt::format("own{}", n));
    EXPECT_EQ(alone.terminate(), 0);
  }
  ASSERT_TRUE(nodes_[0]->start());
  const Finished second = refused(nodes_[1]->data(), "n2");
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_NE(second.err.find("databases of its own"), std::string::npos) << second.err;
  // It is still a single node's.
  ServerProcess alone(folders_[1]);
  ASSERT_TRUE(alone.start());
  EXPECT_EQ(alone.request("GET", "/v1/databases/own1")->status, 200);
}

}  // namespace
}  // namespace offprint::testing
