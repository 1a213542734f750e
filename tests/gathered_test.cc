// A publication of several databases as its readers meet it: two services that own columns of one
// row follow the joined one, each writes its own; who may publish it; kills at random.
// OFFPRINT_TEST_ROUNDS says how often.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <random>
#include <thread>

#include <fmt/format.h>

#include "sqlite/connection.h"
#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class GatheredServerTest : public ::testing::Test {
 protected:
  void start(const std::vector<std::string>& options = {}) {
    server_.set_options(options);
    ASSERT_TRUE(server_.start());
  }
  void make_sources() {
    for (const char* source : {"movies", "forum/ratings", "shop"}) server_.create(source);
    server_.query("movies", "CREATE TABLE movie(id INTEGER PRIMARY KEY, title TEXT, secret TEXT)");
    server_.query("movies", "CREATE TABLE part(id INTEGER PRIMARY KEY, movie INTEGER)");
    server_.query("forum/ratings",
                  "CREATE TABLE rating(movie INTEGER PRIMARY KEY, stars INT, voter TEXT)");
    server_.query("shop", "CREATE TABLE movie_shop(id INTEGER PRIMARY KEY, price REAL)");
  }
  std::string write(const std::string& file, const std::string& text) {
    std::ofstream(folder_ / file) << text;
    return folder_ / file;
  }
  std::string run(const std::vector<std::string>& arguments) {
    Finished done = server_.run(arguments);
    return done.exit_code == 0 ? done.out : fmt::format("failed {}: {}", done.exit_code, done.err);
  }
  std::string ask(const std::string& spec, const std::string& sql) {
    Finished done = run_program({program(), "open", spec, sql});
    return done.exit_code == 0 ? done.out : "failed: " + done.err;
  }

  // Feeds have what is published, and no more.
  void expect_feed_of_what_is_published() {
    const std::string feed = "/db/shop/pub/cinema@v1/changes?";
    auto told = server_.request("GET", feed + "wait=1");
    ASSERT_TRUE(told);
    const std::string watermark = R"("watermark":")";
    const std::string at = told->body.substr(told->body.find(watermark) + watermark.size(), 59);
    server_.query("forum/ratings", "INSERT INTO rating VALUES(2, 4, 'SECRET')");
    told = server_.request("GET", fmt::format("{}since={}&wait=30000", feed, at));
    ASSERT_TRUE(told);
    EXPECT_THAT(told->body, AllOf(HasSubstr(R"("t":"movie","op":"u","k":{"id":2})"),
                                  ::testing::Not(HasSubstr("_offprint"))));
  }

  void expect_columns_of_their_owners(const std::string& file) {
    auto here = [&](const std::string& sql) {
      std::string out = run_program({"sqlite3", file, sql}).out;
      while (out.ends_with('\n')) out.pop_back();
      return out;
    };
    const std::string ids = here("SELECT group_concat(id) FROM movie");
    const char* list =
        "SELECT group_concat({0} || ':' || {1}, ' ') FROM (SELECT * FROM {2} WHERE {1} IS NOT NULL "
        "AND {0} IN ({3}) ORDER BY {0})";
    for (const auto& [column, source, table, key] :
         {std::tuple{"title", "movies", "movie", "id"},
          std::tuple{"price", "shop", "movie_shop", "id"},
          std::tuple{"stars", "forum/ratings", "rating", "movie"}}) {
      const std::string mine = here(fmt::format(fmt::runtime(list), "id", column, "movie", ids));
      EXPECT_EQ(mine + "\n",
                run({"sql", source, fmt::format(fmt::runtime(list), key, column, table, ids)}));
    }
  }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
};

constexpr const char* kJoined =
    "CREATE PUBLICATION cinema FROM movies, forum/ratings AS forum AS\n"
    "  VIEW movie(id, title, price, stars) KEY(id) AS\n"
    "    SELECT m.id, m.title, s.price, r.stars FROM movies.movie m\n"
    "    LEFT JOIN movie_shop s ON s.id = m.id LEFT JOIN forum.rating r ON r.movie = m.id,\n"
    "  TABLE movies.part(id, movie)\n";

// Each of two services follows the joined rows and owns its columns of them.
TEST_F(GatheredServerTest, BothWays) {
  start();
  make_sources();
  server_.query("movies", "INSERT INTO movie VALUES(1, 'Alien', 'SECRET'), (2, 'Brazil', '')");
  server_.query("forum/ratings", "INSERT INTO rating VALUES(1, 5, 'SECRET')");
  // The text is made of what the shop has beside its own file.
  for (const char* source : {"movies", "forum/ratings", "shop"}) {
    const std::string file = folder_ / (source[0] == 'f' ? "ratings" : source) + ".db";
    ASSERT_THAT(run({"follow", server_.database_url(source), file, "--once"}),
                HasSubstr("caught up"));
  }
  const std::string spec = write("shop.toml", R"toml(
database = "shop.db"
[attach]
movies = "movies.db"
forum = "ratings.db"
[databases]
forum = "forum/ratings"
[[view]]
name = "movie"
rows = "movies.movie(title)"
own = "movie_shop"
with = ["forum.rating(stars)"]
)toml");
  const std::string text = write("cinema.sql", run({"compose", spec, "--publication", "cinema"}));
  EXPECT_THAT(run({"publish", "check", "shop", text}), HasSubstr("fits as cinema@v1"));
  EXPECT_THAT(run({"publish", "create", "shop", text}), HasSubstr("published cinema@v1"));
  EXPECT_THAT(run({"publish", "show", "shop", "cinema"}),
              HasSubstr("FROM forum/ratings AS forum(rating(movie, stars)),\n  main(movie_shop(id, "
                        "price)),\n  movies(movie(id, title)) AS"));
  const std::string joined = folder_ / "cinema.db";
  FollowerProcess follower(folder_, server_.database_url("shop") + "/pub/cinema@v1", joined);
  follower.start();
  expect_soon(joined, "SELECT * FROM movie ORDER BY id",
              "[[1,\"Alien\",null,5],[2,\"Brazil\",null,null]]");
  expect_soon(joined, "SELECT name, database FROM _offprint_sources ORDER BY 1",
              "[[\"forum\",\"forum/ratings\"],[\"main\",\"shop\"],[\"movies\",\"movies\"]]");
  // What the shop writes, the movies service sees, and the other way round; each with the joined
  // file and the columns that it owns.
  server_.query("shop", "INSERT INTO movie_shop VALUES(2, 4.5)");
  server_.query("movies", "UPDATE movie SET title = 'Brazil!' WHERE id = 2");
  expect_soon(joined, "SELECT * FROM movie WHERE id = 2", "[[2,\"Brazil!\",4.5,null]]");
  auto own = sqlite::Connection::open(folder_ / "own.db", {.create = true});
  ASSERT_TRUE(own->execute("CREATE TABLE movie_shop(id INTEGER PRIMARY KEY, price REAL)"));
  const std::string service = write("service.toml", R"toml(
database = "own.db"
[attach]
cinema = "cinema.db"
[[view]]
name = "movie"
rows = "cinema.movie(title, stars)"
own = "movie_shop"
)toml");
  EXPECT_EQ(ask(service, "UPDATE movie SET price = 7 WHERE title = 'Alien'"), "");
  EXPECT_EQ(ask(service, "SELECT title, stars, price FROM movie WHERE id = 1"), "Alien\t5\t7.0\n");
  EXPECT_THAT(ask(service, "UPDATE movie SET stars = 1"), HasSubstr("belongs to cinema.movie"));
  EXPECT_EQ(file_text(joined).find("SECRET"), std::string::npos);
  EXPECT_THAT(run({"sql", "movies", "ALTER TABLE movie RENAME COLUMN title TO name"}),
              HasSubstr("shop/pub/cinema@v1 takes of this database what this takes away"));
  expect_feed_of_what_is_published();
}

TEST_F(GatheredServerTest, WhoPublishesItMayPublishEachOfItsSources) {
  ASSERT_EQ(run_program({program(), "token", "keygen", folder_ / "key"}).exit_code, 0);
  start({"--auth-keys", folder_ / "key.pub"});
  auto token = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {program(), "token", "create", "--key", folder_ / "key"});
    Finished made = run_program(arguments);
    EXPECT_EQ(made.exit_code, 0) << made.err;
    while (made.out.ends_with('\n')) made.out.pop_back();
    return made.out;
  };
  auto as = [&](const std::string& who, const std::string& method, const std::string& path,
                const std::string& body = {}) {
    HttpConnection connection(server_.port());
    auto answer = connection.request(method, path, body, "Authorization: Bearer " + who + "\r\n");
    EXPECT_TRUE(answer) << path;
    return answer.value_or(HttpConnection::Answer());
  };
  const std::string admin = token({"--db", "*", "--read", "--write", "--schema", "--admin"});
  for (const char* source : {"movies", "shop"}) {
    ASSERT_EQ(as(admin, "POST", "/v1/databases", fmt::format(R"({{"name":"{}"}})", source)).status,
              201);
    ASSERT_EQ(as(admin, "POST", fmt::format("/db/{}/query", source),
                 sql_body("CREATE TABLE t(id INTEGER PRIMARY KEY, x)"))
                  .status,
              200);
  }
  const std::string body =
      R"({"definition":"CREATE PUBLICATION p FROM movies AS TABLE movies.t(*), TABLE t(id) AS u"})";
  const std::string path = "/v1/databases/shop/publications";
  const std::string of_shop = token({"--db", "shop", "--verb", "publish"});
  for (const std::string& action :
       {std::string("?check=1"), std::string("?draft=1"), std::string()}) {
    auto refused = as(of_shop, "POST", path + action, body);
    EXPECT_EQ(refused.status, 403) << refused.body;
    EXPECT_THAT(refused.body, HasSubstr("does not allow publish on database 'movies'"));
  }
  const std::string of_both = token({"--db", "shop", "--db", "movies", "--verb", "publish"});
  auto made = as(of_both, "POST", path, body);
  EXPECT_EQ(made.status, 201) << made.body;
  EXPECT_THAT(made.body, HasSubstr(R"("sources":[{"name":"main","database":"shop"},)"
                                   R"({"name":"movies","database":"movies"}])"));
  // A reader's token names the instance, as of any other.
  const std::string reader = token({"--db", "shop/pub/p@v1", "--read"});
  EXPECT_EQ(as(reader, "POST", "/db/shop/pub/p@v1/query", sql_body("SELECT * FROM t")).status, 200);
  EXPECT_EQ(as(reader, "POST", "/db/movies/query", sql_body("SELECT * FROM t")).status, 403);
  EXPECT_EQ(as(token({"--db", "movies", "--read"}), "POST", "/db/shop/pub/p@v1/query",
               sql_body("SELECT * FROM t"))
                .status,
            403);
}

// A transaction of one source: both tables of movies, or one of the others.
std::string work(const std::string& source, int id) {
  std::vector<std::string> statements;
  if (source == "movies") {
    statements = {fmt::format("INSERT INTO movie VALUES({0}, 't{0}', 'SECRET')", id),
                  fmt::format("INSERT INTO part VALUES({0}, {0})", id),
                  fmt::format("UPDATE movie SET title = title || '+' WHERE id = {}", id - 3),
                  fmt::format("DELETE FROM movie WHERE id = {}", id - 20),
                  fmt::format("DELETE FROM part WHERE movie = {}", id - 20)};
  } else if (source == "shop") {
    statements = {fmt::format("INSERT INTO movie_shop VALUES({0}, {0})", id),
                  fmt::format("UPDATE movie_shop SET price = price + 1 WHERE id = {}", id - 5)};
  } else {
    statements = {fmt::format("INSERT INTO rating VALUES({0}, {0} % 6, 'SECRET')", id),
                  fmt::format("DELETE FROM rating WHERE movie = {}", id - 9)};
  }
  std::string body = "[";
  for (const std::string& sql : statements)
    body += fmt::format(R"({}{{"sql":"{}"}})", body.size() > 1 ? "," : "", sql);
  return body + "]";
}

TEST_F(GatheredServerTest, KillsAtAnyMomentLoseAndDoubleNothing) {
  start();
  make_sources();
  ASSERT_THAT(run({"publish", "create", "shop", write("cinema.sql", kJoined)}),
              HasSubstr("published"));
  const int rounds = number_from_environment("OFFPRINT_TEST_ROUNDS", 4);
  std::mt19937 random(static_cast<unsigned>(rounds));
  const std::string url = server_.database_url("shop") + "/pub/cinema@v1";
  const std::string file = folder_ / "cinema.db";
  std::map<std::string, int> ids = {{"movies", 30}, {"shop", 30}, {"forum/ratings", 30}};
  for (int round = 0; round < rounds; ++round) {
    FollowerProcess follower(folder_, url, file);
    follower.start();
    if (round == 0) expect_soon(file, "SELECT count(*) FROM movie", "[[0]]");  // there it is
    std::atomic<bool> stop{false};
    std::vector<std::thread> writers;
    for (auto& [source, id] : ids) {
      writers.emplace_back([&, &own = source, &next = id, port = server_.port()] {
        HttpConnection client(port);
        // Until it is killed.
        for (; !stop; ++next) {
          auto answer = client.request("POST", "/db/" + own + "/query", work(own, next));
          if (!answer) break;
          EXPECT_EQ(answer->status, 200) << answer->body;
        }
      });
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(150 + random() % 400));
    if (round % 3 != 1) server_.kill();
    if (round % 3 != 0) follower.kill();
    stop = true;
    for (std::thread& writer : writers) writer.join();
    for (auto& [source, id] : ids) ++id;  // it may or may not have happened
    StockReader reader(file);
    EXPECT_EQ(reader.query("SELECT count(*) FROM movie WHERE id NOT IN (SELECT movie FROM part)"),
              "[[0]]")
        << "half of a transaction";
    if (!server_.running()) {
      ASSERT_TRUE(server_.restart());
    }
  }
  for (auto& [source, id] : ids)
    EXPECT_GT(id, 30 + 5 * rounds) << "something to lose in " << source;
  FollowerProcess follower(folder_, url, file);
  follower.start();
  server_.query("movies", "INSERT INTO movie VALUES(7, 'last', '')");
  server_.query("shop", "INSERT INTO movie_shop VALUES(7, 7)");
  server_.query("forum/ratings", "INSERT INTO rating VALUES(7, 3, '')");
  expect_soon(file, "SELECT price, stars FROM movie WHERE id=7", "[[7.0,3]]");
  StockReader reader(file);
  EXPECT_EQ(reader.query("PRAGMA integrity_check"), "[[\"ok\"]]");
  expect_columns_of_their_owners(file);
  EXPECT_EQ(file_text(file).find("SECRET"), std::string::npos);
  EXPECT_EQ(follower.terminate(), 0);
}

}  // namespace
}  // namespace offprint::testing
