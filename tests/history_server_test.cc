// Restores, forks and reads of earlier states beside replicas, stock readers and kills.
#include <random>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class HistoryServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(server_.start());
    server_.create("orders");
    server_.query("orders", "CREATE TABLE t (a)");
  }
  std::string now() {
    auto info = server_.run({"db", "info", "orders", "--json"});
    std::size_t at = info.out.find("\"bookmark\":\"");
    return at == std::string::npos ? "" : info.out.substr(at + 12, 59);
  }
  std::string rows() { return server_.query("orders", "SELECT group_concat(a) FROM t"); }
  // Brings the replica up to date; it must take transactions, no pages.
  void follow() {
    Finished followed = server_.run({"follow", "orders", replica_, "--once", "--verify", "--json"});
    EXPECT_EQ(followed.exit_code, 0) << followed.err;
    EXPECT_THAT(followed.out, HasSubstr("\"equal\":true"));
    EXPECT_THAT(followed.out, Not(HasSubstr("\"event\":\"resync\"")));
  }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
  const std::string replica_ = folder_ / "replica.db";
};

TEST_F(HistoryServerTest, ReplicasAndTheirReadersFollowARestore) {
  server_.query("orders", "INSERT INTO t VALUES (1)");
  follow();
  StockReader reader(replica_);
  const std::string then = now();
  EXPECT_EQ(reader.query("SELECT * FROM t"), "[[1]]");
  server_.query("orders", "ALTER TABLE t ADD COLUMN b");
  server_.query("orders", "INSERT INTO t VALUES (2, 3)");
  follow();
  EXPECT_EQ(reader.query("SELECT * FROM t"), "[[1,null],[2,3]]");
  Finished restored = server_.run({"db", "restore", "orders", "--at", then});
  ASSERT_EQ(restored.exit_code, 0) << restored.err;
  follow();
  EXPECT_EQ(reader.query("SELECT * FROM t"), "[[1]]");
  server_.query("orders", "INSERT INTO t VALUES (4)");
  server_.kill();
  ASSERT_TRUE(server_.restart());
  EXPECT_EQ(rows(), "[[\"1,4\"]]");
  follow();
  EXPECT_EQ(reader.query("SELECT * FROM t"), "[[1],[4]]");
}

// What a restore answered stays, what it did not answer is there whole or not at all, whenever the
// server dies.
TEST_F(HistoryServerTest, AKilledRestoreIsWholeOrNot) {
  std::mt19937_64 random(test_seed());
  std::string then;
  for (int i = 1; i <= 40; ++i) {
    server_.query("orders", "INSERT INTO t VALUES (" + std::to_string(i) + ")");
    server_.query("orders", "CREATE TABLE IF NOT EXISTS u (b)");
    if (i == 20) then = now();
    server_.query("orders", "INSERT INTO u VALUES (randomblob(30000))");
  }
  const std::string all = rows();
  const std::string newest = now();
  std::string early;
  for (int i = 1; i <= 20; ++i) early += (i > 1 ? "," : "") + std::to_string(i);
  early = "[[\"" + early + "\"]]";
  bool is_early = false;
  for (int round = 0; round < 8; ++round) {
    const std::string& target = is_early ? newest : then;
    Process::Options options;
    options.arguments = {program(), "db",   "restore",  "orders",
                         "--at",    target, "--server", server_.url()};
    Process restore(options);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 60'000));
    server_.kill();
    const bool answered = restore.wait(in_seconds(30)) == 0;
    ASSERT_TRUE(server_.restart());
    const std::string found = rows();
    ASSERT_TRUE(found == early || found == all) << found;
    if (answered) EXPECT_EQ(found == early, !is_early);
    is_early = found == early;
    EXPECT_EQ(server_.query("orders", "PRAGMA integrity_check"), "[[\"ok\"]]");
  }
}

// What is missing is the moment, not the database.
TEST_F(HistoryServerTest, WhatIsNotThereIsNamed) {
  auto error = [&](const std::vector<std::string>& arguments) {
    Finished refused = server_.run(arguments);
    EXPECT_EQ(refused.exit_code, 1) << refused.out;
    EXPECT_THAT(refused.err, Not(HasSubstr("db list")));
    return refused.err;
  };
  EXPECT_THAT(error({"db", "snapshot", "orders", "--drop", "never"}), HasSubstr("no tag 'never'"));
  EXPECT_THAT(error({"db", "restore", "orders", "--at", "tag:never"}), HasSubstr("no tag 'never'"));
  EXPECT_THAT(error({"sql", "orders", "SELECT 1", "--at", "7"}),
              HasSubstr("no content at 1970-01-01T00:00:07.000Z"));
  Finished absent = server_.run({"sql", "nothing", "SELECT 1"});
  EXPECT_THAT(absent.err, HasSubstr("db list"));
}

}  // namespace
}  // namespace offprint::testing
