// Services with live replicas beside their own databases: `open`, `compose`, `react`.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include <fmt/format.h>

#include "sqlite/connection.h"
#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using ::testing::HasSubstr;

constexpr const char* kCountries = "/usr/share/iso-codes/json/iso_3166-1.json";

class ConsumersTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(server_.start()); }

  // A file of the service's own.
  void own(const std::string& file, const std::string& statements) {
    sqlite::Connection::Options options;
    options.create = true;
    auto connection = sqlite::Connection::open(folder_ / file, options);
    ASSERT_TRUE(connection);
    ASSERT_TRUE(connection->execute(("PRAGMA journal_mode=WAL;" + statements).c_str()));
  }
  void write(const std::string& file, const std::string& text) {
    std::ofstream(folder_ / file) << text;
  }
  std::string expect_done(const Finished& done) {
    EXPECT_EQ(done.exit_code, 0) << done.err;
    return done.out;
  }
  static void wait_for(const std::string& file) {
    for (const Deadline until = in_seconds(30); !std::filesystem::exists(file);) {
      ASSERT_LT(SteadyClock::now(), until) << file << " does not appear";
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  void publish(const std::string& database, const std::string& definition) {
    write("definition.pub", definition);
    expect_done(server_.run({"publish", "create", database, folder_ / "definition.pub"}));
  }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
};

// A static table, published once: services attach it, and find what does not fit to it.
TEST_F(ConsumersTest, CountriesArePublishedOnceAndAttachedEverywhere) {
  const std::string json = file_text(kCountries);
  ASSERT_GT(json.size(), 10'000U) << "the package iso-codes is missing";
  server_.create("world");
  server_.query("world",
                "CREATE TABLE country (alpha_2 TEXT PRIMARY KEY, name TEXT NOT NULL, flag)");
  write("countries.json", json);
  std::string quoted;
  for (char c : json) quoted += c == '\'' ? std::string("''") : std::string(1, c);
  expect_done(server_.run({"sql", "world"},
                          "INSERT INTO country SELECT value->>'alpha_2', value->>'name', "
                          "value->>'flag' FROM json_each('" +
                              quoted + "', '$.\"3166-1\"');\n"));
  publish("world", "CREATE PUBLICATION iso AS TABLE country(alpha_2, name)");
  const std::string url = server_.database_url("world") + "/pub/iso@v1";
  expect_done(server_.run({"follow", url, folder_ / "countries.db", "--once"}));
  own("crm.db",
      "CREATE TABLE address (id INTEGER PRIMARY KEY, country TEXT);"
      "INSERT INTO address VALUES (1, 'DE'), (2, 'XX'), (3, NULL), (4, 'AW')");
  write("crm.toml",
        "database = \"crm.db\"\n[attach]\niso = \"countries.db\"\n[[foreign_key]]\n"
        "from = \"address(country)\"\nto = \"iso.country(alpha_2)\"\n");
  Finished check = run_program({program(), "compose", folder_ / "crm.toml", "--check"});
  EXPECT_EQ(check.exit_code, 1);
  EXPECT_EQ(check.out, "address(country)\taddress\tiso.country\tXX\n");
  const std::string names =
      "SELECT name FROM address JOIN iso.country ON alpha_2 = country ORDER BY id";
  const std::string replica = "iso=" + (folder_ / "countries.db");
  EXPECT_EQ(
      expect_done(run_program({program(), "open", folder_ / "crm.db", names, "--attach", replica})),
      "Germany\nAruba\n");
  // The SQL that compose prints does the same in a stock program.
  const std::string sql = expect_done(run_program({program(), "compose", folder_ / "crm.toml"}));
  EXPECT_EQ(expect_done(run_program({"sqlite3", folder_ / "crm.db"}, {},
                                    sql + names + ";SELECT \"key\" FROM offprint_missing;")),
            "Germany\nAruba\nXX\n");
  // A country that comes is there for everyone.
  server_.query("world", "INSERT INTO country VALUES ('XX', 'Nowhere', '')");
  expect_done(server_.run({"follow", url, folder_ / "countries.db", "--once"}));
  EXPECT_EQ(run_program({program(), "compose", folder_ / "crm.toml", "--check"}).exit_code, 0);
}

// SQL that would add up wrongly if a change were run twice or never, while everything is killed.
TEST_F(ConsumersTest, EachChangeRunsOnceOverKills) {
  server_.create("stock");
  server_.query("stock", "CREATE TABLE stock (id INTEGER PRIMARY KEY, n INT NOT NULL)");
  server_.query("stock", "INSERT INTO stock VALUES (0, 1)");
  const std::string replica = folder_ / "stock.db";
  FollowerProcess follower(folder_, server_.database_url("stock"), replica);
  follower.start();
  own("sums.db", "CREATE TABLE sums (total INT); INSERT INTO sums VALUES (0)");
  write("sums.toml",
        "database = \"sums.db\"\n[attach]\nshop = \"stock.db\"\n[[on_row]]\nname = \"sums\"\n"
        "table = \"shop.stock\"\n"
        "sql = \"UPDATE sums SET total = total + coalesce(:new_n, 0) - coalesce(:old_n, 0)\"\n");
  wait_for(replica);

  const std::uint64_t seed = test_seed();
  std::mt19937_64 random(seed);
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    std::mt19937_64 of_writer(seed + 1);
    HttpConnection connection(server_.port());
    while (!stop) {
      const std::uint64_t id = of_writer() % 50;
      connection.request(
          "POST", "/db/stock/query",
          of_writer() % 4 == 0
              ? fmt::format(R"({{"sql":"DELETE FROM stock WHERE id = {}"}})", id)
              : fmt::format(R"json({{"sql":"REPLACE INTO stock VALUES ({}, {})"}})json", id,
                            of_writer() % 1000));
    }
  });
  Process::Options options;
  options.arguments = {program(), "react", folder_ / "sums.toml"};
  options.stderr_path = folder_ / "react.log";
  const int rounds = number_from_environment("OFFPRINT_TEST_ROUNDS", 12);
  int reacted = 0;
  for (int round = 0; round < rounds; ++round) {
    Process process(options);
    // It has run something, and may be at the next; then a random moment.
    if (process.read_line(in_seconds(30))) ++reacted;
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 20'000));
    process.kill();
    if (round % 4 == 3) {
      follower.kill();
      follower.start();
    }
  }
  stop = true;
  writer.join();
  EXPECT_EQ(reacted, rounds) << file_text(folder_ / "react.log");
  follower.kill();
  expect_done(server_.run({"follow", "stock", replica, "--once"}));
  expect_done(run_program({program(), "react", folder_ / "sums.toml", "--once"}));
  EXPECT_EQ(StockReader(folder_ / "sums.db").query("SELECT total FROM sums"),
            server_.query("stock", "SELECT sum(n) FROM stock"));
  EXPECT_EQ(run_program({program(), "react", folder_ / "sums.toml", "--once"}).out, "");
}

TEST_F(ConsumersTest, ReactFollowsUntilItIsStopped) {
  server_.create("m");
  server_.query("m", "CREATE TABLE movie (id INTEGER PRIMARY KEY, title TEXT)");
  FollowerProcess follower(folder_, server_.database_url("m"), folder_ / "m.db");
  follower.start();
  own("shop.db",
      "CREATE TABLE movie_shop (id INTEGER PRIMARY KEY, quantity INT NOT NULL DEFAULT 0)");
  write("shop.toml",
        "database = \"shop.db\"\n[attach]\nm = \"m.db\"\n[[on_row]]\nname = \"extend\"\n"
        "table = \"m.movie(title)\"\ninsert = \"INSERT INTO movie_shop(id) VALUES (:new_id)\"\n"
        "update = \"UPDATE none SET a = 1\"\n");
  wait_for(folder_ / "m.db");
  Finished wrong = run_program({program(), "react", folder_ / "shop.toml"});
  EXPECT_EQ(wrong.exit_code, 1);
  EXPECT_THAT(wrong.err, HasSubstr("on_row extend: no such table: none"));
  write(
      "shop.toml",
      file_text(folder_ / "shop.toml").substr(0, file_text(folder_ / "shop.toml").find("update")));
  Process::Options options;
  options.arguments = {program(), "react", folder_ / "shop.toml", "--json"};
  Process process(options);
  for (int i = 1; i <= 3; ++i) {
    server_.query("m", fmt::format("INSERT INTO movie VALUES ({}, 'x')", i));
    const std::string line = process.read_line(in_seconds(30)).value_or("nothing");
    EXPECT_THAT(line, HasSubstr("\"inserted\":1,\"updated\":0,\"deleted\":0,\"bookmark\":\"0"));
  }
  EXPECT_EQ(StockReader(folder_ / "shop.db").query("SELECT id, quantity FROM movie_shop"),
            "[[1,0],[2,0],[3,0]]");
  process.signal(SIGTERM);
  EXPECT_EQ(process.wait(in_seconds(30)), 0);
  // A stock program writes its own columns through the view.
  write("shop.toml",
        "database = \"shop.db\"\n[attach]\nm = \"m.db\"\n[[view]]\nname = \"movie\"\n"
        "rows = \"m.movie\"\nown = \"movie_shop\"\n");
  const std::string sql = expect_done(run_program({program(), "compose", folder_ / "shop.toml"}));
  Finished stock = run_program({"sqlite3", folder_ / "shop.db"}, {},
                               sql +
                                   "UPDATE movie SET quantity = id * 2 WHERE id > 1;"
                                   "SELECT * FROM movie; UPDATE movie SET title = 'y';");
  EXPECT_EQ(stock.out, "1|x|0\n2|x|4\n3|x|6\n");
  EXPECT_THAT(stock.err, HasSubstr("movie.title belongs to m.movie"));
  EXPECT_EQ(run_program({program(), "react", folder_ / "none.toml"}).exit_code, 1);
  EXPECT_EQ(
      run_program({program(), "react", folder_ / "shop.toml", "--forget", "nobody"}).exit_code, 2);
}

}  // namespace
}  // namespace offprint::testing
