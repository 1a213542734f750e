// A publication as its readers meet it: the program, a follower, stock SQLite on the file; also
// when server and follower are killed at random. OFFPRINT_TEST_ROUNDS says how often.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <random>
#include <thread>

#include <fmt/format.h>

#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using ::testing::HasSubstr;

constexpr const char* kDefinition =
    "CREATE PUBLICATION shop(tenant INTEGER) AS\n"
    "  TABLE orders(id, customer, total) WHERE tenant = :tenant,\n"
    "  TABLE items(id, order_id, qty) WHERE order_id IN (SELECT id FROM orders WHERE tenant = "
    ":tenant),\n"
    "  VIEW sums(customer, n) KEY(customer) AS SELECT customer, count(*) FROM orders WHERE tenant "
    "= :tenant GROUP BY customer,\n"
    "  INDEX orders(customer)\n";

class InstanceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(server_.start());
    server_.create("orders");
    query(
        "CREATE TABLE orders(id INTEGER PRIMARY KEY, tenant INTEGER, customer TEXT, total REAL, "
        "secret TEXT)");
    query("CREATE TABLE items(id INTEGER PRIMARY KEY, order_id INTEGER, qty INTEGER)");
    query("CREATE INDEX items_order ON items(order_id)");
    query("CREATE INDEX orders_customer ON orders(customer)");
    query("INSERT INTO orders VALUES(1, 7, 'amy', 10, 'SECRET-7'), (2, 8, 'bob', 20, 'SECRET-8')");
    query("INSERT INTO items VALUES(1, 1, 3), (2, 2, 4)");
  }
  std::string query(const std::string& sql) { return server_.query("orders", sql); }
  std::string publish(const std::string& text, const std::string& action = "create") {
    const std::string file = folder_ / "definition.sql";
    std::ofstream(file) << text;
    Finished done = server_.run({"publish", action, "orders", file});
    return done.exit_code == 0 ? done.out : "refused: " + done.err;
  }
  std::string run(std::vector<std::string> arguments) {
    Finished done = server_.run(arguments);
    return done.exit_code == 0 ? done.out : "failed: " + done.err;
  }
  std::string address(const std::string& version, int tenant) const {
    return fmt::format("{}/db/orders/pub/shop{}?tenant={}", server_.url(), version, tenant);
  }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
};

TEST_F(InstanceTest, FollowersHaveWhatIsPublishedAndNothingElse) {
  EXPECT_THAT(publish(kDefinition, "check"), HasSubstr("fits as shop@v1"));
  EXPECT_THAT(publish(kDefinition), HasSubstr("published shop@v1"));
  EXPECT_THAT(publish("CREATE PUBLICATION p AS TABLE orders(total)"),
              HasSubstr("'id' of its primary key is not published"));
  EXPECT_THAT(run({"publish", "list", "orders"}), HasSubstr("shop@v1"));
  const std::string file = folder_ / "shop.db";
  FollowerProcess follower(folder_, address("@v1", 7), file);
  follower.start();
  expect_soon(file, "SELECT * FROM orders", "[[1,\"amy\",10.0]]");
  query("UPDATE orders SET tenant=7, total=21 WHERE id=2");
  expect_soon(file, "SELECT id, total FROM orders", "[[1,10.0],[2,21.0]]");
  expect_soon(file, "SELECT id FROM items", "[[1],[2]]");
  expect_soon(file, "SELECT * FROM sums ORDER BY 1", "[[\"amy\",1],[\"bob\",1]]");
  query("UPDATE orders SET tenant=9 WHERE id=1");
  expect_soon(file, "SELECT customer, n FROM sums", "[[\"bob\",1]]");
  expect_soon(file, "SELECT name FROM sqlite_schema WHERE type='table' ORDER BY 1",
              "[[\"_offprint\"],[\"items\"],[\"orders\"],[\"sums\"]]");
  EXPECT_EQ(follower.terminate(), 0);
  // Who begins to follow now gets a file in which nothing else ever was.
  const std::string late = folder_ / "late.db";
  EXPECT_THAT(run({"follow", address("@v1", 7), late, "--once"}), HasSubstr("caught up"));
  const std::string bytes = file_text(late);
  // No word of hex digits alone is looked for: bookmarks and ids stand in the file.
  EXPECT_NE(bytes.find("bob"), std::string::npos);
  for (const char* gone : {"SECRET", "amy", "secret", "tenant INTEGER"})
    EXPECT_EQ(bytes.find(gone), std::string::npos) << gone;
  // It answers as a database does, and takes no writes.
  auto answer = server_.request("POST", "/db/orders/pub/shop/query?tenant=7",
                                R"([{"sql":"SELECT id FROM orders"}])");
  ASSERT_TRUE(answer);
  EXPECT_THAT(answer->body, HasSubstr("[2]"));
  answer = server_.request("POST", "/db/orders/pub/shop/query?tenant=7",
                           R"([{"sql":"DELETE FROM orders"}])");
  ASSERT_TRUE(answer);
  EXPECT_NE(answer->status, 200) << answer->body;
  for (const char* sql : {"PRAGMA database_list", "SELECT file FROM pragma_database_list"}) {
    answer = server_.request("POST", "/db/orders/pub/shop/query?tenant=7",
                             fmt::format(R"([{{"sql":"{}"}}])", sql));
    ASSERT_TRUE(answer);
    EXPECT_THAT(answer->body, HasSubstr("database_list needs schema_update"));
    EXPECT_EQ(answer->body.find(folder_.path()), std::string::npos) << answer->body;
  }
  // A feed whose position is gone says where to begin anew.
  answer = server_.request("GET",
                           "/db/orders/pub/shop@v1/changes?tenant=7&wait=1&since=00000000-00000000-"
                           "00000001-" +
                               std::string(32, '0'));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 410) << answer->body;
  EXPECT_THAT(answer->body, HasSubstr("\"snapshot\":\"/db/orders/pub/shop@v1/snapshot?tenant=7\""));
  answer = server_.request("GET", "/db/orders/pub/shop/snapshot?tenant=seven");
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 400);
  EXPECT_THAT(answer->body, HasSubstr("PUBLICATION_PARAMETER"));
}

TEST_F(InstanceTest, AChangeOfTheSchemaThatOldAndNewReadersSurvive) {
  EXPECT_THAT(publish("CREATE PUBLICATION shop(tenant INTEGER) AS TABLE orders(id, total) WHERE "
                      "tenant = :tenant"),
              HasSubstr("published shop@v1"));
  EXPECT_THAT(run({"sql", "orders", "ALTER TABLE orders RENAME COLUMN total TO cents"}),
              HasSubstr("shop@v1 is published with what this takes away"));
  query("ALTER TABLE orders ADD COLUMN cents INTEGER AS (total * 100)");
  EXPECT_THAT(publish("CREATE PUBLICATION shop(tenant INTEGER) AS TABLE orders(id, cents) WHERE "
                      "tenant = :tenant"),
              HasSubstr("published shop@v2"));
  const std::string old_file = folder_ / "old.db", new_file = folder_ / "new.db";
  FollowerProcess old_reader(folder_, address("@v1", 7), old_file);
  FollowerProcess new_reader(folder_, address("", 7), new_file);
  old_reader.start();
  new_reader.start();
  query("UPDATE orders SET total = 11 WHERE id = 1");
  expect_soon(old_file, "SELECT * FROM orders", "[[1,11.0]]");
  expect_soon(new_file, "SELECT * FROM orders", "[[1,1100]]");
  EXPECT_THAT(run({"publish", "deprecate", "orders", "shop@v1", "--sunset", "2030-01-31"}),
              HasSubstr("deprecated"));
  EXPECT_THAT(run({"publish", "show", "orders", "shop@v1", "--json"}),
              HasSubstr("\"sunset\":\"2030-01-31T"));
  EXPECT_THAT(run({"publish", "retire", "orders", "shop@v1"}), HasSubstr("retired"));
  EXPECT_THAT(run({"follow", address("@v1", 7), folder_ / "late.db", "--once"}),
              HasSubstr("shop@v1 is kept no more"));
  query("UPDATE orders SET total = 12 WHERE id = 1");
  expect_soon(new_file, "SELECT * FROM orders", "[[1,1200]]");
}

// A transaction that inserts, moves and deletes.
std::string work(int id) {
  std::string body = "[";
  for (const std::string& sql :
       {fmt::format("INSERT INTO orders VALUES({0}, {1}, 'c{2}', {0}, 'SECRET')", id, 7 + id % 2,
                    id % 5),
        fmt::format("INSERT INTO items VALUES({0}, {0}, 1)", id),
        fmt::format("UPDATE orders SET tenant = 15 - tenant WHERE id = {}", id - 3),
        fmt::format("DELETE FROM items WHERE order_id = {}", id - 20),
        fmt::format("DELETE FROM orders WHERE id = {}", id - 20)})
    body += fmt::format("{}{{\"sql\":\"{}\"}}", body.size() > 1 ? "," : "", sql);
  return body + ']';
}

// Two rows that must be there together, in one order of two tables; and moves between tenants.
TEST_F(InstanceTest, KillsAtAnyMomentLoseAndDoubleNothing) {
  ASSERT_THAT(publish(kDefinition), HasSubstr("published"));
  const int rounds = number_from_environment("OFFPRINT_TEST_ROUNDS", 4);
  std::mt19937 random(static_cast<unsigned>(rounds));
  const std::string file = folder_ / "shop.db";
  int id = 10, committed = 0;
  for (int round = 0; round < rounds; ++round) {
    FollowerProcess follower(folder_, address("@v1", 7), file);
    follower.start();
    std::atomic<bool> stop{false};
    std::thread writer([&, port = server_.port()] {
      HttpConnection client(port);
      // Until it is killed.
      for (; !stop; ++id) {
        auto answer = client.request("POST", "/db/orders/query", work(id));
        if (!answer) break;
        EXPECT_EQ(answer->status, 200) << answer->body;
        ++committed;
      }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(100 + random() % 400));
    if (round % 3 != 1) server_.kill();
    if (round % 3 != 0) follower.kill();
    stop = true;
    writer.join();
    ++id;  // it may or may not have happened
    StockReader reader(file);
    EXPECT_EQ(reader.query("SELECT count(*) FROM orders WHERE id > 9 AND id NOT IN (SELECT "
                           "order_id FROM items)"),
              "[[0]]")
        << "half of a transaction";
    if (!server_.running()) {
      ASSERT_TRUE(server_.restart());
    }
  }
  FollowerProcess follower(folder_, address("@v1", 7), file);
  follower.start();
  EXPECT_GT(committed, 10 * rounds) << "there was something to lose";
  query("INSERT INTO orders VALUES(5, 7, 'last', 1, '')");
  expect_soon(file, "SELECT total FROM orders WHERE id=5", "[[1.0]]");
  const std::string sum = "SELECT count(*) AS n, sum(id*total) AS s FROM orders";
  Finished mine = server_.run({"sql", "--json", "orders", sum + " WHERE tenant=7"});
  Finished copy = server_.run({"sql", "--json", address("@v1", 7), sum});
  EXPECT_EQ(copy.out, mine.out) << copy.err;
  StockReader reader(file);
  EXPECT_EQ(reader.query("PRAGMA integrity_check"), "[[\"ok\"]]");
  EXPECT_EQ(reader.query("SELECT count(*) FROM orders"), reader.query("SELECT sum(n) FROM sums"));
  // What it missed while nobody kept it comes from the log.
  EXPECT_EQ(follower.terminate(), 0);
  server_.kill();
  ASSERT_TRUE(server_.restart());
  query("INSERT INTO orders VALUES(6, 7, 'later', 2, ''), (7, 8, 'not his', 2, '')");
  EXPECT_THAT(run({"follow", address("@v1", 7), file, "--once", "--verify"}),
              HasSubstr("caught up"));
  EXPECT_EQ(reader.query("SELECT id FROM orders WHERE id IN (6, 7)"), "[[6]]");
  auto status = server_.request("GET", "/v1/databases/orders/publications");
  ASSERT_TRUE(status);
  EXPECT_THAT(status->body, HasSubstr("\"resumed\":1"));
}

}  // namespace
}  // namespace offprint::testing
