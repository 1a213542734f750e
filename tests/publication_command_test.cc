// `offprint publish` and `offprint contract` on a live server: a first text, consumers and what
// they read, who follows, quotas, and instances that nobody uses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <thread>

#include <fmt/format.h>

#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class PublicationCommandTest : public ::testing::Test {
 protected:
  void start(const std::vector<std::string>& options = {}) {
    server_.set_options(options);
    ASSERT_TRUE(server_.start());
    server_.create("orders");
    query("CREATE TABLE orders(id INTEGER PRIMARY KEY, tenant INTEGER, customer TEXT, total REAL)");
    query("CREATE INDEX orders_tenant ON orders(tenant)");
    query("CREATE TABLE log(line TEXT)");
    query("INSERT INTO orders VALUES(1, 7, 'ada', 10), (2, 8, 'bob', 20)");
  }
  void publish() {
    const std::string file = write("shop.sql",
                                   "CREATE PUBLICATION shop(tenant INTEGER) AS TABLE orders(id, "
                                   "customer, total) WHERE tenant = :tenant");
    ASSERT_THAT(run({"publish", "create", "orders", file}), HasSubstr("published shop@v1"));
  }
  std::string query(const std::string& sql) { return server_.query("orders", sql); }
  std::string run(const std::vector<std::string>& arguments) {
    Finished done = server_.run(arguments);
    return done.exit_code == 0 ? done.out : fmt::format("failed {}: {}", done.exit_code, done.err);
  }
  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  std::string address(int tenant) const {
    return fmt::format("{}/db/orders/pub/shop@v1?tenant={}", server_.url(), tenant);
  }
  template <class Condition>
  void wait_for(const char* what, Condition condition) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), until) << what;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
};

TEST_F(PublicationCommandTest, AFirstTextIsWrittenAndFits) {
  start();
  const std::string file = folder_ / "first.sql";
  EXPECT_EQ(run({"publish", "init", "orders", "-o", file}), "");
  EXPECT_THAT(file_text(file), AllOf(HasSubstr("CREATE PUBLICATION orders AS\n  TABLE orders(id, "),
                                     HasSubstr("--   log: it has no PRIMARY KEY")));
  EXPECT_THAT(run({"publish", "init", "orders", "-o", file}), HasSubstr("it is left as it is"));
  EXPECT_THAT(run({"publish", "check", "orders", file}),
              AllOf(HasSubstr("fits as orders@v1"), HasSubstr("2 rows, about ")));
  EXPECT_THAT(run({"publish", "create", "orders", file}), HasSubstr("published orders@v1"));
  // Of a script and a file, without a server.
  const std::string script = write("schema.sql", "CREATE TABLE a(k TEXT PRIMARY KEY, v);");
  EXPECT_THAT(run({"publish", "init", script, "--table", "a", "--name", "mine"}),
              HasSubstr("CREATE PUBLICATION mine AS\n  TABLE a(k, v)\n"));
  EXPECT_THAT(run({"publish", "init", script, "--table", "b"}), HasSubstr("there is no table 'b'"));
  EXPECT_THAT(run({"publish", "init", "orders", "--table", "log"}),
              HasSubstr("nothing here can be published"));
}

TEST_F(PublicationCommandTest, ConsumersAreToldOfWhereverItMatters) {
  start();
  publish();
  const std::string totals = write("totals.sql", "SELECT sum(total) FROM orders;");
  EXPECT_THAT(run({"contract", "register", "orders", "shop@v1", "--consumer", "reports", totals}),
              HasSubstr("reports reads of shop@v1: orders(total)"));
  EXPECT_THAT(run({"contract", "register", "orders", "shop@v1", "--consumer", "wrong",
                   write("wrong.sql", "SELECT tenant FROM orders")}),
              HasSubstr("wrong.sql:1: no such column: tenant"));
  EXPECT_THAT(run({"contract", "list", "orders"}), HasSubstr("reports"));
  EXPECT_THAT(run({"publish", "show", "orders", "shop@v1"}),
              HasSubstr("-- consumer reports reads orders(total)"));
  EXPECT_THAT(run({"sql", "orders", "ALTER TABLE orders DROP COLUMN total"}),
              HasSubstr("Of its registered consumers it hits reports."));
  // Of the source's own columns: what a consumer needs is an error, what nobody reads is told.
  const std::string next = write("next.sql",
                                 "CREATE TABLE orders(id INTEGER PRIMARY KEY, tenant INTEGER);"
                                 "CREATE INDEX orders_tenant ON orders(tenant);"
                                 "CREATE TABLE log(line TEXT);");
  Finished checked = server_.run({"contract", "check", "orders", next, "--consumers"});
  EXPECT_EQ(checked.exit_code, 1) << checked.err;
  EXPECT_THAT(checked.out, HasSubstr("\"total\" is read by contract reports of shop@v1"));
  EXPECT_THAT(checked.out, HasSubstr("(warning) table \"orders\" column \"customer\""));
  EXPECT_THAT(checked.out, HasSubstr("no registered consumer reads it"));
  EXPECT_THAT(run({"publish", "deprecate", "orders", "shop@v1"}),
              HasSubstr("registered as reading it: reports (orders(total))"));
  EXPECT_THAT(run({"contract", "unregister", "orders", "shop@v1", "--consumer", "reports"}),
              HasSubstr("reads shop@v1 no more"));
  checked = server_.run({"contract", "check", "orders", next, "--consumers"});
  EXPECT_EQ(checked.exit_code, 0) << checked.out;
  // Who must breaks it: then it is listed as that, and holds nobody up, also after a start.
  EXPECT_EQ(run({"sql", "--break", "orders", "ALTER TABLE orders DROP COLUMN total"}), "");
  ASSERT_EQ(server_.terminate(), 0);
  ASSERT_TRUE(server_.restart());
  EXPECT_EQ(run({"sql", "orders", "ALTER TABLE orders ADD COLUMN more"}), "");
  EXPECT_THAT(run({"publish", "list", "orders"}), HasSubstr("deprecated, broken"));
}

TEST_F(PublicationCommandTest, WhoFollowsIsSeenAndWhereItsSourceStands) {
  start();
  publish();
  const std::string file = folder_ / "shop.db";
  FollowerProcess follower(folder_, address(7), file, {"--json"});
  follower.start();
  query("UPDATE orders SET total = 11 WHERE id = 1");
  const std::string bookmark = R"("bookmark":")";
  std::string body = server_.request("GET", "/v1/databases/orders")->body;
  const std::string source = body.substr(body.find(bookmark) + bookmark.size(), 59);
  wait_for("the transaction's source", [&] {
    const std::string log = follower.log();
    const std::size_t at = log.rfind("\"event\":\"applied\"");
    return at != std::string::npos && log.find("\"source\":\"" + source, at) != std::string::npos;
  });
  // What changes nothing of it moves its source all the same.
  query("UPDATE orders SET total = 21 WHERE id = 2");
  body = server_.request("GET", "/v1/databases/orders")->body;
  const std::string later = body.substr(body.find(bookmark) + bookmark.size(), 59);
  wait_for("the watermark",
           [&] { return follower.log().find("\"source\":\"" + later) != std::string::npos; });
  EXPECT_THAT(server_.request("GET", "/v1/databases?instances=1")->body,
              AllOf(HasSubstr("\"address\":\"127.0.0.1\",\"connected\":true"),
                    HasSubstr("\"position\":\"0000000")));
  EXPECT_THAT(run({"publish", "show", "orders", "shop@v1"}),
              HasSubstr("-- /db/orders/pub/shop@v1?tenant=7 followed by 127.0.0.1, last seen"));
  EXPECT_EQ(follower.terminate(), 0);
  wait_for("that it went", [&] {
    return run({"publish", "show", "orders", "shop@v1"}).find("was followed by") !=
           std::string::npos;
  });
}

TEST_F(PublicationCommandTest, AnInstanceOverItsQuotaTellsItsFollowers) {
  start();
  publish();
  const std::string file = folder_ / "shop.db";
  FollowerProcess follower(folder_, address(7), file, {"--json"});
  follower.start();
  FollowerProcess other(folder_, address(8), folder_ / "other.db");
  other.start();
  wait_for("the file", [&] { return std::ifstream(file).good(); });
  EXPECT_THAT(run({"publish", "limit", "orders", "shop@v1", "--size-bytes-max", "100000"}),
              HasSubstr("at most 100000 bytes"));
  query(
      "WITH RECURSIVE c(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM c WHERE i < 2000) INSERT "
      "INTO orders SELECT i, 7, printf('%0200d', i), i FROM c");
  wait_for("the follower's error", [&] {
    return follower.log().find("shop@v1?tenant=7 has stopped: it would be larger than 100000") !=
           std::string::npos;
  });
  EXPECT_TRUE(follower.running());
  EXPECT_EQ(server_.metric("instances_stopped"), 1u);
  query("UPDATE orders SET total = 22 WHERE id = 2");
  StockReader reader(folder_ / "other.db");
  wait_for("the other's row",
           [&] { return reader.query("SELECT total FROM orders") == "[[22.0]]"; });
  EXPECT_EQ(StockReader(file).query("SELECT count(*) FROM orders"), "[[1]]");
  run({"publish", "limit", "orders", "shop@v1", "--size-bytes-max", "0"});
  StockReader own(file);
  wait_for("its rows", [&] { return own.query("SELECT count(*) FROM orders") == "[[1902]]"; });
}

TEST_F(PublicationCommandTest, WhatNobodyFollowsComesBackWithTheDifference) {
  start({"--instance-rest-ms", "100", "--instance-drop-ms", "300"});
  publish();
  query(
      "WITH RECURSIVE c(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM c WHERE i < 5000) INSERT "
      "INTO orders SELECT i, 7, printf('%0200d', i), i FROM c");
  const std::string file = folder_ / "shop.db";
  EXPECT_THAT(run({"follow", address(7), file, "--once"}), HasSubstr("caught up"));
  wait_for("that it is dropped", [&] { return server_.metric("instances_dropped") >= 1; });
  query("UPDATE orders SET total = 0 WHERE id = 1000");
  // Another lineage by now: of its pages those that differ come.
  Finished followed = server_.run({"follow", address(7), file, "--once", "--json", "--verify"});
  ASSERT_EQ(followed.exit_code, 0) << followed.err;
  EXPECT_THAT(followed.out, HasSubstr("\"event\":\"resync\""));
  EXPECT_THAT(followed.out, HasSubstr("\"equal\":true"));
  EXPECT_EQ(StockReader(file).query("SELECT total FROM orders WHERE id = 1000"), "[[0.0]]");
  EXPECT_EQ(StockReader(file).query("SELECT count(*) FROM orders"), "[[4902]]");
}

}  // namespace
}  // namespace offprint::testing
