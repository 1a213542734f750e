// Instances of publications on a read replica, as their followers meet them: one copy of each and
// one stream from the primary, also when nodes are killed and the network is cut.
// OFFPRINT_TEST_ROUNDS says how often.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <random>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "tests/lag_proxy.h"
#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kDefinition =
    "CREATE PUBLICATION shop(tenant INTEGER) AS\n"
    "  TABLE orders(id, customer, total) WHERE tenant = :tenant,\n"
    "  VIEW sums(customer, n) KEY(customer) AS SELECT customer, count(*) FROM orders WHERE tenant "
    "= :tenant GROUP BY customer\n";

class RelayTest : public ::testing::Test {
 protected:
  void start(std::vector<std::string> primary_options = {},
             std::vector<std::string> copy_options = {}) {
    primary_.set_options(with({"--node-name", "primary"}, std::move(primary_options)));
    ASSERT_TRUE(primary_.start());
    way_ = std::make_unique<LagProxy>(primary_.port());
    copy_.set_options(
        with({"--node-name", "copy", "--follow", way_->url()}, std::move(copy_options)));
    ASSERT_TRUE(copy_.start());
  }
  // A source with a publication, shop@v1.
  void publish() {
    primary_.create("orders");
    query(
        "CREATE TABLE orders(id INTEGER PRIMARY KEY, tenant INTEGER, customer TEXT, total REAL, "
        "secret TEXT)");
    query("CREATE INDEX orders_customer ON orders(customer)");
    query("INSERT INTO orders VALUES(1, 7, 'ada', 10, 'SECRET-7'), (2, 8, 'bob', 20, 'SECRET-8')");
    publish(kDefinition);
  }
  void publish(const std::string& text) {
    const std::string file = primary_folder_ / "definition.sql";
    std::ofstream(file) << text;
    Finished done = primary_.run({"publish", "create", "orders", file});
    EXPECT_EQ(done.exit_code, 0) << done.err;
  }
  static std::vector<std::string> with(std::vector<std::string> list,
                                       std::vector<std::string> more) {
    list.insert(list.end(), more.begin(), more.end());
    return list;
  }
  std::string query(const std::string& sql) { return primary_.query("orders", sql); }
  std::string address(const std::string& rest) const {
    return copy_.url() + "/db/orders/pub/" + rest;
  }
  template <class Condition>
  static bool comes(Condition condition, double seconds = 30) {
    for (Deadline until = in_seconds(seconds); SteadyClock::now() < until;) {
      if (condition()) return true;
      std::this_thread::sleep_for(5ms);
    }
    return false;
  }
  static void expect_soon(const std::string& file, const std::string& sql,
                          const std::string& rows) {
    std::string found;
    EXPECT_TRUE(comes([&] {
      StockReader reader(file);
      found = reader.query(sql);
      return found == rows;
    })) << found;
  }
  // What an instance says here.
  static std::string ask(ServerProcess& node, const std::string& rest, const std::string& sql) {
    auto answer = node.request("POST", "/db/orders/pub/" + rest, fmt::format("\"{}\"", sql));
    return answer ? std::to_string(answer->status) + " " + answer->body : "nothing";
  }
  static std::size_t count(const std::string& text, const std::string& part) {
    std::size_t found = 0;
    for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size())
      ++found;
    return found;
  }
  std::string instances() {
    auto listed = primary_.request("GET", "/v1/databases?instances=1");
    return listed ? listed->body : "nothing";
  }

  TemporaryFolder primary_folder_, copy_folder_;
  ServerProcess primary_{primary_folder_}, copy_{copy_folder_};
  std::unique_ptr<LagProxy> way_;
};

TEST_F(RelayTest, ManyFollowersAreOneToThePrimary) {
  start();
  publish();
  std::vector<std::unique_ptr<TemporaryFolder>> folders;
  std::vector<std::unique_ptr<FollowerProcess>> followers;
  for (const char* each : {"shop@v1?tenant=7", "shop?tenant=7", "shop@v1?tenant=07",
                           "shop@v1/?tenant=7", "shop@v1?x=1&tenant=7"}) {
    folders.push_back(std::make_unique<TemporaryFolder>());
    followers.push_back(std::make_unique<FollowerProcess>(*folders.back(), address(each),
                                                          *folders.back() / "shop.db"));
    followers.back()->start();
  }
  for (auto& each : followers)
    expect_soon(each->file(), "SELECT * FROM orders", "[[1,\"ada\",10.0]]");
  query("UPDATE orders SET tenant=7, total=21 WHERE id=2");
  for (auto& each : followers) {
    expect_soon(each->file(), "SELECT id, total FROM orders", "[[1,10.0],[2,21.0]]");
    expect_soon(each->file(), "SELECT * FROM sums ORDER BY 1", "[[\"ada\",1],[\"bob\",1]]");
    EXPECT_EQ(file_text(each->file()).find("SECRET"), std::string::npos);
  }
  // Whoever asks the copy is told by the primary: one instance, and one follower of it.
  auto listed = copy_.request("GET", "/v1/databases?instances=1");
  ASSERT_TRUE(listed);
  EXPECT_EQ(count(listed->body, "\"source\":\"orders\""), 1u) << listed->body;
  // A stream that the copy has ended is seen to be gone when it is written to again.
  for (Deadline until = SteadyClock::now() + 10s;
       count(listed->body, "\"connected\":true") > 1 && SteadyClock::now() < until;) {
    query("UPDATE orders SET total=total+1 WHERE id=2");
    listed = copy_.request("GET", "/v1/databases?instances=1");
    ASSERT_TRUE(listed);
  }
  EXPECT_EQ(count(listed->body, "\"connected\":true"), 1u) << listed->body;
  auto own = copy_.request("GET", "/v1/databases");
  ASSERT_TRUE(own);
  EXPECT_THAT(own->body, Not(HasSubstr("relayed")));
}

TEST_F(RelayTest, ACopyAnswersAsThePrimaryDoes) {
  start();
  publish();
  EXPECT_THAT(ask(copy_, "shop@v1/query?tenant=7", "SELECT id, total FROM orders"),
              HasSubstr("200 {\"results\":[{\"columns\":[\"id\",\"total\"],\"rows\":[[1,10.0]]"));
  auto answer = copy_.request("POST", "/db/orders/pub/shop/query?tenant=7", "\"SELECT 1\"");
  ASSERT_TRUE(answer);
  EXPECT_EQ(header_of(answer->head, "Offprint-Served-By"), "copy");
  EXPECT_FALSE(header_of(answer->head, "Offprint-Age-Ms").empty());
  EXPECT_THAT(ask(copy_, "shop@v1/query?tenant=7", "DELETE FROM orders"), HasSubstr("403 "));
  EXPECT_THAT(ask(copy_, "shop@v1/query?tenant=seven", "SELECT 1"),
              HasSubstr("PUBLICATION_PARAMETER"));
  EXPECT_THAT(ask(copy_, "shop@v1/query", "SELECT 1"), HasSubstr("400 "));
  EXPECT_THAT(ask(copy_, "shop@v2/query?tenant=7", "SELECT 1"), HasSubstr("404 "));
  EXPECT_THAT(ask(copy_, "nothing/query", "SELECT 1"), HasSubstr("404 "));
  auto listed = copy_.request("GET", "/v1/databases/orders/publications");
  ASSERT_TRUE(listed);
  EXPECT_THAT(listed->body, HasSubstr("shop"));
  answer = copy_.request("POST", "/db/orders/pub/shop@v1/query?tenant=7", "\"SELECT 1\"");
  ASSERT_TRUE(answer);
  const std::string before = header_of(answer->head, "Offprint-Bookmark");
  // A state that the primary's instance has, here or there.
  query("INSERT INTO orders VALUES(3, 7, 'eve', 3, '')");
  std::string bookmark;
  ASSERT_TRUE(comes([&] {
    auto there = primary_.request("POST", "/db/orders/pub/shop@v1/query?tenant=7",
                                  "\"SELECT count(*) FROM orders\"");
    bookmark = there ? header_of(there->head, "Offprint-Bookmark") : "";
    return there && there->body.find("[[2]]") != std::string::npos;
  }));
  HttpConnection client(copy_.port());
  answer =
      client.request("POST", "/db/orders/pub/shop@v1/query?tenant=7",
                     "\"SELECT count(*) FROM orders\"", "Offprint-Bookmark: " + bookmark + "\r\n");
  ASSERT_TRUE(answer);
  EXPECT_THAT(answer->body, HasSubstr("[[2]]"));
  EXPECT_EQ(header_of(answer->head, "Offprint-Served-By"), "copy");
  // Its changes, row by row.
  answer = copy_.request("GET",
                         "/db/orders/pub/shop@v1/changes?tenant=7&since=" + before + "&wait=1000");
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 200) << answer->body;
  EXPECT_THAT(answer->body, HasSubstr("eve"));
  for (const char* action : {"snapshot", "dump", "export?format=csv&table=orders"}) {
    const std::string parameters = std::string(action).contains('?') ? "&tenant=7" : "?tenant=7";
    answer = copy_.request("GET", "/db/orders/pub/shop@v1/" + (action + parameters));
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->status, 200) << answer->body;
    EXPECT_THAT(answer->body, HasSubstr("eve"));
  }
}

// Each new one is followed beside the others: none has to begin again for ever, and a large one
// comes while small ones are asked for all the time.
TEST_F(RelayTest, ManyNewOnesAtOnce) {
  start();
  publish();
  query(
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO "
      "orders SELECT 100 + i, 1000, hex(randomblob(1000)), i, '' FROM n");
  way_->set_delay_ms(20);
  std::atomic<int> answered{0};
  std::vector<std::thread> clients;
  for (int client = 0; client < 8; ++client) {
    clients.emplace_back([&, client, port = copy_.port()] {
      HttpConnection connection(port);
      for (int i = 0; i < 10; ++i) {
        const bool is_large = client == 0 && i == 3;
        const int tenant = is_large ? 1000 : 100 + client * 10 + i;
        auto answer = connection.request(
            "POST", fmt::format("/db/orders/pub/shop@v1/query?tenant={}", tenant),
            "\"SELECT count(*) FROM orders\"");
        if (answer && answer->body.contains(is_large ? "[[3000]]" : "[[0]]")) ++answered;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(answered, 80);
}

// The source's state goes with each transaction, and with what changes nothing of it.
TEST_F(RelayTest, CopiesOfCopiesTellTheStateOfTheSource) {
  start();
  publish();
  TemporaryFolder folder, follower_folder;
  ServerProcess second(folder, {"--node-name", "second", "--follow", copy_.url()});
  ASSERT_TRUE(second.start());
  FollowerProcess follower(follower_folder, second.url() + "/db/orders/pub/shop?tenant=7",
                           follower_folder / "shop.db", {"--json"});
  follower.start();
  auto source_of = [&](const std::string& sql) {
    auto done = primary_.request("POST", "/db/orders/query", fmt::format("\"{}\"", sql));
    return done ? "\"source\":\"" + header_of(done->head, "Offprint-Bookmark") : "nothing";
  };
  expect_soon(follower.file(), "SELECT id FROM orders", "[[1]]");
  std::string source = source_of("INSERT INTO orders VALUES(9, 7, 'ada', 1, '')");
  EXPECT_TRUE(comes([&] { return follower.log().find(source) != std::string::npos; }));
  expect_soon(follower.file(), "SELECT id FROM orders", "[[1],[9]]");
  source = source_of("INSERT INTO orders VALUES(10, 8, 'not his', 1, '')");
  EXPECT_TRUE(comes([&] { return follower.log().find(source) != std::string::npos; }));
  // It goes on when the node between is killed and comes back.
  copy_.kill();
  query("INSERT INTO orders VALUES(11, 7, 'ada', 1, '')");
  ASSERT_TRUE(copy_.restart());
  expect_soon(follower.file(), "SELECT id FROM orders", "[[1],[9],[11]]");
  EXPECT_TRUE(comes([&] { return count(instances(), "\"connected\":true") == 1; })) << instances();
}

TEST_F(RelayTest, ReadsGoOnWithoutThePrimary) {
  start();
  publish();
  FollowerProcess follower(copy_folder_, address("shop@v1?tenant=7"), copy_folder_ / "shop.db");
  follower.start();
  expect_soon(follower.file(), "SELECT id FROM orders", "[[1]]");
  primary_.kill();
  EXPECT_THAT(ask(copy_, "shop@v1/query?tenant=7", "SELECT id FROM orders"), HasSubstr("[[1]]"));
  EXPECT_THAT(ask(copy_, "shop@v1/query?tenant=8", "SELECT id FROM orders"), HasSubstr("503 "));
  EXPECT_TRUE(follower.running());
  ASSERT_TRUE(primary_.restart());
  query("INSERT INTO orders VALUES(3, 7, 'eve', 3, '')");
  expect_soon(follower.file(), "SELECT id FROM orders", "[[1],[3]]");
  EXPECT_THAT(ask(copy_, "shop@v1/query?tenant=8", "SELECT id FROM orders"), HasSubstr("[[2]]"));
}

// What is no more at the primary is no more here, and says why as it does there.
TEST_F(RelayTest, WhatEndsThereEndsHere) {
  start();
  publish();
  FollowerProcess follower(copy_folder_, address("shop@v1?tenant=7"), copy_folder_ / "shop.db");
  follower.start();
  expect_soon(follower.file(), "SELECT id FROM orders", "[[1]]");
  EXPECT_EQ(primary_.run({"publish", "limit", "orders", "shop@v1", "--rows-per-minute-max", "5"})
                .exit_code,
            0);
  query(
      "INSERT INTO orders SELECT value, 7, 'x', 1, '' FROM json_each('[20,21,22,23,24,25,26,27]')");
  EXPECT_TRUE(comes([&] {
    return ask(copy_, "shop@v1/query?tenant=7", "SELECT 1").find("PUBLICATION_QUOTA") !=
           std::string::npos;
  })) << ask(copy_, "shop@v1/query?tenant=7", "SELECT 1");
  EXPECT_EQ(primary_.run({"publish", "limit", "orders", "shop@v1", "--rows-per-minute-max", "0"})
                .exit_code,
            0);
  expect_soon(follower.file(), "SELECT count(*) FROM orders", "[[9]]");
  publish("CREATE PUBLICATION shop(tenant INTEGER) AS TABLE orders(id) WHERE tenant = :tenant");
  EXPECT_TRUE(comes([&] {  // the newest version is another one now
    return ask(copy_, "shop/query?tenant=7", "SELECT * FROM orders LIMIT 1").find("\"id\"],") !=
           std::string::npos;
  }));
  EXPECT_EQ(primary_.run({"publish", "retire", "orders", "shop@v1"}).exit_code, 0);
  EXPECT_TRUE(comes([&] {
    return ask(copy_, "shop@v1/query?tenant=7", "SELECT 1").find("is kept no more") !=
           std::string::npos;
  })) << ask(copy_, "shop@v1/query?tenant=7", "SELECT 1");
  EXPECT_THAT(ask(copy_, "shop@v2/query?tenant=7", "SELECT count(*) FROM orders"),
              HasSubstr("[[9]]"));
}

TEST_F(RelayTest, WhatNobodyUsesGoes) {
  start({}, {"--instance-rest-ms", "2000", "--instance-drop-ms", "300"});
  publish();
  const std::uint64_t before = copy_.metric("databases");
  for (int tenant = 0; tenant < 5; ++tenant) {
    EXPECT_THAT(ask(copy_, fmt::format("shop/query?tenant={}", tenant), "SELECT 1"),
                HasSubstr("200 "));
  }
  EXPECT_GE(copy_.metric("databases"), before + 5);
  EXPECT_TRUE(comes([&] { return copy_.metric("databases") == before; }));
  EXPECT_TRUE(comes([&] { return count(instances(), "\"connected\":true") == 0; }));
  EXPECT_THAT(ask(copy_, "shop/query?tenant=7", "SELECT id FROM orders"), HasSubstr("[[1]]"));
}

TEST_F(RelayTest, ATokenOpensItsInstanceAlone) {
  const std::string key = primary_folder_ / "key";
  ASSERT_EQ(primary_.run({"token", "keygen", key}).exit_code, 0);
  auto make_token = [&](std::vector<std::string> options) {
    Finished made = primary_.run(with({"token", "create", "--key", key}, std::move(options)));
    EXPECT_EQ(made.exit_code, 0) << made.err;
    return "Authorization: Bearer " + made.out.substr(0, made.out.find('\n')) + "\r\n";
  };
  const std::string admin = make_token({"--db", "*", "--admin", "--read", "--write", "--schema",
                                        "--subscribe", "--snapshot", "--verb", "publish"});
  const std::string follow = make_token({"--db", "*", "--subscribe"});
  const std::string mine = make_token({"--db", "orders/pub/shop?tenant=7", "--read"});
  start({"--auth-keys", key + ".pub"},
        {"--auth-keys", key + ".pub", "--follow-token", follow.substr(22, follow.size() - 24)});
  HttpConnection primary(primary_.port()), copy(copy_.port());
  auto send = [&](HttpConnection& to, const std::string& path, const std::string& body,
                  const std::string& token) {
    auto answer = to.request("POST", path, body, token);
    return answer ? std::to_string(answer->status) + " " + answer->body : "nothing";
  };
  EXPECT_THAT(send(primary, "/v1/databases", R"({"name":"orders"})", admin), HasSubstr("201"));
  for (const char* sql :
       {"CREATE TABLE orders(id INTEGER PRIMARY KEY, tenant INTEGER, customer TEXT, total)",
        "CREATE INDEX c ON orders(customer)",
        "INSERT INTO orders VALUES(1, 7, 'ada', 10), (2, 8, 'bob', 20)"})
    EXPECT_THAT(send(primary, "/db/orders/query", fmt::format("\"{}\"", sql), admin),
                HasSubstr("200"));
  EXPECT_THAT(
      send(primary, "/v1/databases/orders/publications",
           R"({"definition":"CREATE PUBLICATION shop(tenant INTEGER) AS TABLE orders(id) WHERE )"
           R"(tenant = :tenant"})",
           admin),
      HasSubstr("201"));
  const std::string select = "\"SELECT id FROM orders\"";
  EXPECT_THAT(send(copy, "/db/orders/pub/shop/query?tenant=7", select, mine), HasSubstr("[[1]]"));
  EXPECT_THAT(send(copy, "/db/orders/pub/shop/query?tenant=8", select, mine), HasSubstr("403"));
  EXPECT_THAT(send(copy, "/db/orders/query", select, mine), HasSubstr("403"));
  EXPECT_THAT(send(copy, "/db/orders/pub/shop/query?tenant=7", select, follow), HasSubstr("403"));
  EXPECT_THAT(send(copy, "/db/orders/pub/shop/query?tenant=7", select, ""), HasSubstr("401"));
}

// Rows that must be there together, and moves between tenants; whoever follows sees whole
// transactions of the source, each once.
TEST_F(RelayTest, KillsAndCutsLoseAndDoubleNothing) {
  start();
  publish();
  query("CREATE TABLE pairs(id INTEGER PRIMARY KEY, tenant INTEGER)");
  publish(
      "CREATE PUBLICATION both(tenant INTEGER) AS TABLE orders(id, total) WHERE tenant = :tenant, "
      "TABLE pairs(id) WHERE tenant = :tenant");
  const int rounds = number_from_environment("OFFPRINT_TEST_ROUNDS", 6);
  std::mt19937 random(static_cast<unsigned>(rounds));
  const std::string file = copy_folder_ / "both.db";
  std::atomic<bool> stop{false};
  std::thread writer([&, port = primary_.port()] {
    auto client = std::make_unique<HttpConnection>(port);
    for (int id = 10; !stop; ++id) {
      const std::string body = fmt::format(
          R"j(["INSERT INTO orders VALUES({0}, 7, 'c', {0}, '')","INSERT INTO pairs VALUES({0}, 7)",)j"
          R"j("UPDATE orders SET tenant = 8 WHERE id = {1}","UPDATE pairs SET tenant = 8 WHERE id = {1}"])j",
          id, id - 30);
      if (client->request("POST", "/db/orders/query", body)) continue;
      std::this_thread::sleep_for(5ms);  // it is killed just now
      client = std::make_unique<HttpConnection>(port);
    }
  });
  FollowerProcess follower(copy_folder_, address("both?tenant=7"), file);
  follower.start();
  for (int round = 0; round < rounds; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(150 + random() % 400));
    switch (random() % 4) {
      case 0:
        primary_.kill();
        EXPECT_TRUE(primary_.restart());
        break;
      case 1:
        copy_.kill();
        EXPECT_TRUE(copy_.restart());
        break;
      case 2:
        follower.kill();
        follower.start();
        break;
      default:
        way_->set_cut(true);
        std::this_thread::sleep_for(100ms);
        way_->set_cut(false);
    }
    if (!std::ifstream(file).good()) continue;
    StockReader reader(file);
    EXPECT_EQ(reader.query("SELECT (SELECT count(*) FROM orders WHERE id > 9) = (SELECT count(*) "
                           "FROM pairs)"),
              "[[1]]")
        << "half of a transaction";
  }
  stop = true;
  writer.join();
  const std::string sum = "SELECT count(*), sum(id), sum(total) FROM orders";
  expect_soon(file, sum, query(sum + " WHERE tenant = 7"));
  StockReader reader(file);
  EXPECT_EQ(reader.query("PRAGMA integrity_check"), "[[\"ok\"]]");
  EXPECT_TRUE(comes([&] { return count(instances(), "\"connected\":true") == 1; })) << instances();
}

}  // namespace
}  // namespace offprint::testing
