// Stock readers, with the system's SQLite, beside everything that can happen to a file.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include <fmt/format.h>

#include "tests/server_process.h"

namespace offprint::testing {
namespace {

class ReaderTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(server_.start()); }

  // Until the file has it, as a reader of its own sees it.
  void wait_for(const std::string& file, const std::string& sql, const std::string& expected) {
    StockReader reader(file);
    std::string found;
    for (Deadline end = in_seconds(60); SteadyClock::now() < end;
         std::this_thread::sleep_for(std::chrono::milliseconds(5))) {
      found = reader.query(sql);
      if (found == expected) return;
    }
    FAIL() << sql << " stays " << found << ", not " << expected << "\n" << server_.log();
  }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
};

TEST_F(ReaderTest, ASnapshotOutlivesKillAndRestartOfTheServer) {
  server_.create("orders");
  server_.query("orders", "CREATE TABLE orders (id INTEGER PRIMARY KEY, n INT)");
  server_.query("orders", "INSERT INTO orders (n) VALUES (1), (2)");
  std::string file = server_.file_with_table("orders");
  ASSERT_FALSE(file.empty());
  StockReader holder(file), late(file);
  EXPECT_EQ(holder.query("BEGIN"), "[]");
  EXPECT_EQ(holder.query("SELECT n FROM orders"), "[[1],[2]]");
  server_.query("orders", "UPDATE orders SET n = n + 10");
  server_.query("orders", "INSERT INTO orders (n) VALUES (3)");
  server_.kill();
  EXPECT_EQ(holder.query("SELECT n FROM orders"), "[[1],[2]]");
  EXPECT_EQ(late.query("SELECT n FROM orders"), "[[11],[12],[3]]");
  ASSERT_TRUE(server_.restart());
  EXPECT_EQ(server_.query("orders", "SELECT n FROM orders"), "[[11],[12],[3]]");
  // Enough to checkpoint if the holder let it, and pages to be used again.
  for (int i = 0; i < 20; ++i) {
    server_.query("orders", "INSERT INTO orders (n) SELECT n + 100 FROM orders WHERE id <= 3");
    server_.query("orders", "CREATE TABLE IF NOT EXISTS filler (b BLOB)");
    server_.query("orders", "INSERT INTO filler VALUES (zeroblob(400000))");
    EXPECT_EQ(holder.query("SELECT n FROM orders"), "[[1],[2]]");
  }
  EXPECT_EQ(holder.query("PRAGMA integrity_check"), "[[\"ok\"]]");
  EXPECT_EQ(holder.query("COMMIT"), "[]");
  EXPECT_EQ(holder.query("SELECT count(*) FROM orders"), "[[63]]");
  EXPECT_EQ(server_.query("orders", "SELECT count(*) FROM orders"), "[[63]]");
  EXPECT_EQ(server_.terminate(), 0) << server_.log();
  EXPECT_EQ(late.query("SELECT count(*) FROM orders"), "[[63]]");
}

TEST_F(ReaderTest, CachedStatementsSeeRightColumnsAfterAnyChangeOfTheSchema) {
  server_.create("shop");
  server_.query("shop", "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)");
  server_.query("shop", "INSERT INTO t VALUES (1, 'a', 'b')");
  std::string replica = folder_ / "replica.db";
  FollowerProcess follower(folder_, server_.database_url("shop"), replica);
  follower.start();
  const std::string all = "SELECT * FROM t", one = "SELECT b FROM t WHERE id = 1";
  for (Deadline end = in_seconds(60);
       !std::filesystem::exists(replica) && SteadyClock::now() < end;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  wait_for(replica, all, "[[1,\"a\",\"b\"]]");
  StockReader reader(replica);
  auto expect = [&](const std::string& rows, const std::string& b) {
    wait_for(replica, all, rows);
    EXPECT_EQ(reader.query(all), rows);
    EXPECT_EQ(reader.query(one), b);
  };
  expect("[[1,\"a\",\"b\"]]", "[[\"b\"]]");
  server_.query("shop", "ALTER TABLE t DROP COLUMN a");
  expect("[[1,\"b\"]]", "[[\"b\"]]");
  server_.query("shop", "ALTER TABLE t ADD COLUMN c DEFAULT 'c'");
  expect("[[1,\"b\",\"c\"]]", "[[\"b\"]]");
  // Another table of the same name, and the same number of changes to the schema.
  server_.query("shop", "DROP TABLE t");
  server_.query("shop", "CREATE TABLE t (b, id INTEGER PRIMARY KEY)");
  server_.query("shop", "INSERT INTO t VALUES ('new', 1)");
  expect("[[\"new\",1]]", "[[\"new\"]]");
  server_.query("shop", "VACUUM");
  expect("[[\"new\",1]]", "[[\"new\"]]");
}

// Dropped and created again, the database has another history, and a schema cookie that was shown
// before.
TEST_F(ReaderTest, CachedStatementsSeeRightColumnsAfterAResync) {
  std::string replica = folder_ / "replica.db";
  const std::string all = "SELECT * FROM t";
  server_.create("shop");
  server_.query("shop", "CREATE TABLE t (a, b)");
  server_.query("shop", "INSERT INTO t VALUES ('first a', 'first b')");
  EXPECT_EQ(server_.run({"follow", "shop", replica, "--once"}).exit_code, 0);
  StockReader reader(replica);
  EXPECT_EQ(reader.query(all), "[[\"first a\",\"first b\"]]");
  for (const char* columns : {"b, a", "a, c, b"}) {
    EXPECT_EQ(server_.run({"db", "drop", "shop"}).exit_code, 0);
    server_.create("shop");
    server_.query("shop", fmt::format("CREATE TABLE t ({})", columns));
    server_.query("shop", "INSERT INTO t (b, a) VALUES ('b', 'a')");
    Finished followed = server_.run({"follow", "shop", replica, "--once", "--verify"});
    ASSERT_EQ(followed.exit_code, 0) << followed.out << followed.err;
    EXPECT_EQ(reader.query("SELECT a, b FROM t"), "[[\"a\",\"b\"]]");
    EXPECT_EQ(reader.query(all), columns[0] == 'b' ? "[[\"b\",\"a\"]]" : "[[\"a\",null,\"b\"]]");
  }
}

TEST_F(ReaderTest, AReaderThatStaysLongNeitherBlocksNorBreaks) {
  server_.create("shop");
  server_.query("shop", "CREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB)");
  server_.query("shop", "INSERT INTO t VALUES (1, zeroblob(10))");
  std::string replica = folder_ / "replica.db";
  ASSERT_EQ(server_.run({"follow", "shop", replica, "--once"}).exit_code, 0);
  FollowerProcess follower(folder_, server_.database_url("shop"), replica);
  StockReader holder(replica);
  EXPECT_EQ(holder.query("BEGIN"), "[]");
  EXPECT_EQ(holder.query("SELECT count(*) FROM t"), "[[1]]");
  follower.start();
  Deadline end = in_seconds(std::getenv("OFFPRINT_TEST_LARGE") ? 60 : 2);
  int last = 1;
  while (last < 60 || SteadyClock::now() < end) {
    server_.query("shop", fmt::format("INSERT INTO t VALUES ({}, randomblob(100000))", ++last));
    if (last % 20 == 0) {
      wait_for(replica, "SELECT max(id) FROM t", fmt::format("[[{}]]", last));
      server_.query("shop",
                    "UPDATE t SET b = randomblob(100000) WHERE id > (SELECT max(id) - 10 FROM t)");
      if (last % 200 == 0)
        server_.query("shop", "DELETE FROM t WHERE id > 1 AND id < (SELECT max(id) - 20 FROM t)");
    }
    EXPECT_EQ(holder.query("SELECT count(*) FROM t"), "[[1]]");
    if (HasFailure()) return;
  }
  EXPECT_EQ(holder.query("COMMIT"), "[]");
  wait_for(replica, "SELECT max(id) FROM t", fmt::format("[[{}]]", last));
  EXPECT_EQ(holder.query("SELECT count(*), sum(id) FROM t"),
            server_.query("shop", "SELECT count(*), sum(id) FROM t"));
  EXPECT_EQ(holder.query("PRAGMA integrity_check"), "[[\"ok\"]]");
  EXPECT_EQ(follower.terminate(), 0) << follower.log();
}

// A program that writes to a hosted file makes copies that differ: it is found, never passed over.
TEST_F(ReaderTest, AForeignWriteIsCapturedOrStopsTheDatabase) {
  server_.create("shop");
  server_.query("shop", "CREATE TABLE t (id INTEGER PRIMARY KEY, n INT)");
  server_.query("shop", "INSERT INTO t VALUES (1, 1)");
  std::string file = server_.file_with_table("t");
  StockReader writer(file, "mode=rw");
  EXPECT_EQ(writer.query("INSERT INTO t VALUES (2, 2)"), "[]");
  auto answer = server_.request("POST", "/db/shop/query", sql_body("INSERT INTO t VALUES (3, 3)"));
  ASSERT_TRUE(answer.has_value());
  if (answer->status != 200) {
    auto info = server_.request("GET", "/v1/databases/shop");
    EXPECT_TRUE(info && json_field(info->body, "stopped") != "") << answer->body;
    return;
  }
  std::string replica = folder_ / "replica.db";
  Finished followed = server_.run({"follow", "shop", replica, "--once", "--verify"});
  EXPECT_EQ(followed.exit_code, 0) << followed.out << followed.err;
  EXPECT_EQ(StockReader(replica).query("SELECT * FROM t"), "[[1,1],[2,2],[3,3]]");
  ASSERT_TRUE(server_.restart());
  EXPECT_EQ(server_.query("shop", "SELECT * FROM t"), "[[1,1],[2,2],[3,3]]");
}

}  // namespace
}  // namespace offprint::testing
