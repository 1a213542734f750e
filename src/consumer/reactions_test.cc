// on_row: the service's SQL runs once for each change, whatever fails.
#include <random>
#include <thread>

#include "consumer/consumer_testing.h"
#include "consumer/reactions.h"

namespace offprint::consumer {
namespace {

using testing::ask;
using ::testing::HasSubstr;

std::string on_row(const std::string& rest) {
  return "[[on_row]]\nname = \"extend\"\ntable = \"movies.movie(title, length)\"\n" + rest;
}

class ReactionsTest : public testing::ConsumerTest {
 protected:
  void SetUp() override {
    ConsumerTest::SetUp();
    sql("shop.db", "CREATE TABLE seen(op, id, old_title, new_title, new_length)");
  }
  std::unique_ptr<Reactions> open(const std::string& text) {
    auto spec = read(text);
    EXPECT_TRUE(spec) << spec.error().message();
    auto reactions = Reactions::open(*spec);
    EXPECT_TRUE(reactions) << reactions.error().message();
    return reactions ? *std::move(reactions) : nullptr;
  }
  std::string in_shop(const std::string& statement) {
    auto connection = sqlite::Connection::open(path("shop.db"), {});
    return ask(*connection, statement);
  }
  // What has been written down since the last time.
  std::string news() {
    std::string rows = in_shop("SELECT op, id, old_title, new_title, new_length FROM seen");
    in_shop("DELETE FROM seen");
    return rows;
  }
  // "inserted/updated/deleted", or the error.
  static std::string run(Reactions& reactions) {
    auto done = reactions.run();
    if (!done) return done.error().message();
    std::string text;
    for (const ReactionCounts& each : *done)
      text += fmt::format("{}/{}/{}", each.inserted, each.updated, each.deleted);
    return text;
  }

  const std::string kWritesDown = on_row(
      "sql = \"INSERT INTO seen VALUES (:op, coalesce(:old_id, :new_id), :old_title, :new_title, "
      ":new_length)\"\n");
};

TEST_F(ReactionsTest, EachChangeOnce) {
  auto reactions = open(kWritesDown);
  EXPECT_EQ(run(*reactions), "2/0/0");
  EXPECT_EQ(news(), "insert|1||Alien|117 insert|2||Brazil|132");
  EXPECT_EQ(run(*reactions), "");
  sql("movies.db",
      "UPDATE movie SET title = 'ALIEN' WHERE id = 1; DELETE FROM movie WHERE id = 2;"
      "INSERT INTO movie VALUES (3, 'Casablanca', 102)");
  EXPECT_EQ(run(*reactions), "1/1/1");
  EXPECT_EQ(news(), "delete|2|Brazil|| update|1|Alien|ALIEN|117 insert|3||Casablanca|102");
  // Written again with the same values: nothing. Another type is another value.
  sql("movies.db", "UPDATE movie SET title = title");
  EXPECT_EQ(run(*reactions), "");
  sql("movies.db", "UPDATE movie SET title = CAST(title AS BLOB) WHERE id = 3");
  EXPECT_EQ(run(*reactions), "0/1/0");
  // Another process goes on where this one stood.
  news();
  sql("movies.db", "UPDATE movie SET length = NULL WHERE id = 1");
  auto another = open(kWritesDown);
  EXPECT_EQ(run(*another), "0/1/0");
  EXPECT_EQ(run(*reactions), "");
  EXPECT_EQ(news(), "update|1|ALIEN|ALIEN|");
}

TEST_F(ReactionsTest, OwnRowsForThoseOfOthersAndBack) {
  auto reactions = open(
      on_row("insert = \"INSERT INTO movie_shop(id) VALUES (:new_id) ON CONFLICT DO NOTHING\"\n"
             "delete = \"DELETE FROM movie_shop WHERE id = :old_id\"\n"));
  EXPECT_EQ(run(*reactions), "2/0/0");
  EXPECT_EQ(in_shop("SELECT * FROM movie_shop"), "1|5|9.5 2|3|");
  sql("movies.db", "DELETE FROM movie WHERE id = 1");
  EXPECT_EQ(run(*reactions), "0/0/1");
  EXPECT_EQ(in_shop("SELECT id FROM movie_shop"), "2");
}

TEST_F(ReactionsTest, StartNowTakesNoNoticeOfWhatIsThere) {
  auto reactions = open(kWritesDown + "start = \"now\"\n");
  EXPECT_EQ(run(*reactions), "2/0/0");
  EXPECT_EQ(news(), "");
  sql("movies.db", "INSERT INTO movie VALUES (3, 'Casablanca', 102)");
  EXPECT_EQ(run(*reactions), "1/0/0");
  EXPECT_EQ(news(), "insert|3||Casablanca|102");
}

TEST_F(ReactionsTest, AFailingRowLeavesNothingBehind) {
  sql("shop.db", "CREATE TABLE strict_shop(id INTEGER PRIMARY KEY CHECK (id <> 2))");
  auto reactions = open(kWritesDown + "update = \"SELECT 1\"\n" +
                        "insert = \"INSERT INTO seen(id) VALUES (:new_id);"
                        "INSERT INTO strict_shop VALUES (:new_id)\"\n");
  const std::string why = run(*reactions);
  EXPECT_THAT(why, HasSubstr("on_row extend, insert of the row with id = 2: CHECK"));
  EXPECT_EQ(in_shop("SELECT count(*) FROM strict_shop"), "0");
  EXPECT_EQ(news(), "");
  EXPECT_EQ(in_shop("SELECT count(*) FROM sqlite_schema WHERE name GLOB '_offprint*'"), "0");
  // Once it can be done, it goes on.
  sql("shop.db", "DROP TABLE strict_shop; CREATE TABLE strict_shop(id)");
  EXPECT_EQ(run(*reactions), "2/0/0");
  EXPECT_EQ(in_shop("SELECT id FROM strict_shop"), "1 2");
}

TEST_F(ReactionsTest, KeysOfAnyKind) {
  sql("movies.db",
      "CREATE TABLE tag(movie INT, word TEXT COLLATE NOCASE, n ANY, PRIMARY KEY(movie, word)) "
      "STRICT;"
      "INSERT INTO tag VALUES (1, 'Space', '1'), (1, 'cat', 1), (2, 'CAT', x'00')");
  auto reactions = open(
      "[[on_row]]\nname = \"tags\"\ntable = \"movies.tag\"\n"
      "sql = \"INSERT INTO seen VALUES (:op, :old_word, :new_word, typeof(:old_n), "
      "typeof(:new_n))\"\n");
  EXPECT_EQ(run(*reactions), "3/0/0");
  EXPECT_EQ(news(), "insert||Space|null|text insert||cat|null|integer insert||CAT|null|blob");
  EXPECT_EQ(run(*reactions), "");
  sql("movies.db",
      "UPDATE tag SET word = 'SPACE' WHERE n = '1'; UPDATE tag SET n = '1' WHERE n = 1");
  EXPECT_EQ(run(*reactions), "0/2/0");
  EXPECT_EQ(news(), "update|cat|cat|integer|text update|Space|SPACE|text|text");
}

TEST_F(ReactionsTest, AReplicaThatIsReplacedIsOpenedAgain) {
  auto reactions = open(kWritesDown);
  EXPECT_EQ(run(*reactions), "2/0/0");
  sql("new.db",
      "CREATE TABLE movie(id INTEGER PRIMARY KEY, title TEXT, length INT);"
      "INSERT INTO movie VALUES (1, 'Alien', 117)");
  ASSERT_EQ(std::rename(path("new.db").c_str(), path("movies.db").c_str()), 0);
  EXPECT_EQ(run(*reactions), "0/0/1");
  EXPECT_EQ(run(*reactions), "");
}

TEST_F(ReactionsTest, RandomChangesAddUp) {
  sql("shop.db", "CREATE TABLE total(n INT); INSERT INTO total VALUES (0)");
  auto reactions =
      open(on_row("insert = \"UPDATE total SET n = n + :new_length\"\n"
                  "update = \"UPDATE total SET n = n + :new_length - :old_length\"\n"
                  "delete = \"UPDATE total SET n = n - :old_length\"\n"));
  std::mt19937 random(7);
  auto movies = sqlite::Connection::open(path("movies.db"), {});
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < 3; ++i) {
      const auto id = random() % 12, length = random() % 100;
      ask(*movies, random() % 3 == 0
                       ? fmt::format("DELETE FROM movie WHERE id = {}", id)
                       : fmt::format("REPLACE INTO movie VALUES ({}, 'x', {})", id, length));
    }
    run(*reactions);
    ASSERT_EQ(in_shop("SELECT n FROM total"),
              ask(*movies, "SELECT coalesce(sum(length), 0) FROM movie"))
        << round;
  }
}

TEST_F(ReactionsTest, WaitsForReplicasAndEndsWhenToldTo) {
  auto reactions = open(kWritesDown);
  EXPECT_EQ(run(*reactions), "2/0/0");
  std::thread writer([&] { sql("movies.db", "DELETE FROM movie WHERE id = 2"); });
  EXPECT_TRUE(reactions->wait().value());
  writer.join();
  EXPECT_EQ(run(*reactions), "0/0/1");
  reactions->stop();
  EXPECT_FALSE(reactions->wait().value());
}

TEST_F(ReactionsTest, RefusesWhatDoesNotFit) {
  auto why = [&](const std::string& text) {
    auto spec = read(text);
    if (!spec) return spec.error().message();
    auto reactions = Reactions::open(*spec);
    return reactions ? std::string() : reactions.error().message();
  };
  EXPECT_THAT(why(on_row("sql = \"SELECT :new_name\"")), HasSubstr(":new_name is none of"));
  EXPECT_THAT(why(on_row("sql = \"SELECT ?\"")), HasSubstr("parameter ? is none of"));
  EXPECT_THAT(why(on_row("sql = \"SELEC 1\"")), HasSubstr("on_row extend: near \"SELEC\""));
  EXPECT_THAT(why(on_row("sql = \"SELECT 1; COMMIT\"")), HasSubstr("not authorized"));
  EXPECT_THAT(run(*open(on_row("sql = \"DELETE FROM movies.movie\""))), HasSubstr("readonly"));
  EXPECT_THAT(why("[[on_row]]\nname = \"A\"\ntable = \"movies.movie\""), HasSubstr("a-z"));
  EXPECT_THAT(why("[[on_row]]\nname = \"a\"\ntable = \"seen\""), HasSubstr("replica's"));
  EXPECT_THAT(why(kWritesDown + kWritesDown), HasSubstr("two [[on_row]] are named extend"));
  EXPECT_THAT(why(""), HasSubstr("no [[on_row]]"));
}

TEST_F(ReactionsTest, OtherColumnsUnderTheSameNameAreRefusedUntilForgotten) {
  EXPECT_EQ(run(*open(kWritesDown)), "2/0/0");
  const std::string other =
      "[[on_row]]\nname = \"extend\"\ntable = \"movies.movie(title)\"\n"
      "sql = \"INSERT INTO seen(op) VALUES ('again')\"\n";
  auto reactions = open(other);
  EXPECT_THAT(run(*reactions), HasSubstr("give it another name"));
  EXPECT_TRUE(reactions->forget("extend").value());
  EXPECT_FALSE(reactions->forget("nobody").value());
  EXPECT_EQ(run(*reactions), "2/0/0");
}

}  // namespace
}  // namespace offprint::consumer
