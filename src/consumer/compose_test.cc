// Composed views: whose columns are read from where, and who may write which.
#include "consumer/consumer_testing.h"

namespace offprint::consumer {
namespace {

using testing::ask;
using ::testing::HasSubstr;

constexpr const char* kMovie = R"toml(
[[view]]
name = "movie"
rows = "movies.movie(title, length AS minutes)"
own = "movie_shop"
)toml";

class ComposeTest : public testing::ConsumerTest {
 protected:
  sqlite::Connection open(const std::string& text, const std::string& attach = {}) {
    auto spec = read(text, attach);
    EXPECT_TRUE(spec) << spec.error().message();
    auto session = open_session(*spec, {});
    EXPECT_TRUE(session) << session.error().message();
    return *std::move(session);
  }
};

TEST_F(ComposeTest, ReadsWhatOthersOwnAndWritesWhatIsOnesOwn) {
  auto session = open(kMovie);
  EXPECT_EQ(ask(session, "SELECT * FROM movie ORDER BY id"), "1|Alien|117|5|9.5 2|Brazil|132||");
  EXPECT_EQ(ask(session, "UPDATE movie SET price = price + 1, title = 'Alien' WHERE id = 1"), "");
  EXPECT_EQ(ask(session, "SELECT * FROM movie_shop"), "1|5|10.5");
  EXPECT_EQ(ask(session, "UPDATE movie SET title = 'ALIEN'"),
            "movie.title belongs to movies.movie");
  EXPECT_EQ(ask(session, "UPDATE movie SET id = 9"), "the key of movie does not change");
  EXPECT_THAT(ask(session, "DELETE FROM movie"), HasSubstr("DELETE FROM movie_shop"));
  EXPECT_EQ(ask(session, "SELECT * FROM movie_shop"), "1|5|10.5");
  EXPECT_THAT(ask(session, "UPDATE movies.movie SET title = ''"), HasSubstr("readonly"));
  // An equal number of another type is another value; nothing else writes the row.
  EXPECT_EQ(ask(session, "UPDATE movie SET price = 10.5 WHERE id = 1"), "");
  EXPECT_EQ(ask(session, "SELECT total_changes()"), "1");
  EXPECT_EQ(ask(session, "UPDATE movie SET price = '10.5' WHERE id = 1"), "");
  EXPECT_EQ(ask(session, "SELECT typeof(price) FROM movie_shop"), "text");
}

TEST_F(ComposeTest, TheFirstWriteMakesTheOwnRowWithItsDefaults) {
  auto session = open(kMovie);
  EXPECT_EQ(ask(session, "UPDATE movie SET price = 4 WHERE id = 2"), "");
  EXPECT_EQ(ask(session, "SELECT * FROM movie_shop WHERE id = 2"), "2|3|4");
  EXPECT_EQ(ask(session, "DELETE FROM movie_shop"), "");
  EXPECT_EQ(ask(session, "INSERT INTO movie(id, price, title) VALUES (2, 6, 'Brazil')"), "");
  EXPECT_EQ(ask(session, "SELECT * FROM movie_shop"), "2|3|6");
  EXPECT_EQ(ask(session, "INSERT INTO movie(id, title) VALUES (1, 'Aliens')"),
            "movie.title belongs to movies.movie");
  EXPECT_EQ(ask(session, "INSERT INTO movie(id) VALUES (9)"), "movies.movie has no such row");
  EXPECT_THAT(ask(session, "INSERT INTO movie(id) VALUES (2)"), HasSubstr("UNIQUE"));
}

TEST_F(ComposeTest, OwnRowsWithColumnsOfOthers) {
  sql("shop.db",
      "CREATE TABLE loan(nr INTEGER PRIMARY KEY, who); INSERT INTO loan VALUES (2, 'a')");
  auto session = open(R"toml(
[[view]]
name = "lent"
rows = "loan"
with = ["movies.movie(title)"]
optional = ["movies.movie"]
)toml");
  EXPECT_EQ(ask(session, "INSERT INTO lent(nr, who) VALUES (7, 'b')"), "");
  EXPECT_EQ(ask(session, "DELETE FROM lent WHERE nr = 2"), "");
  EXPECT_EQ(ask(session, "UPDATE lent SET who = 'c'"), "");
  EXPECT_EQ(ask(session, "SELECT * FROM lent"), "7|c|");
  // Both rows of movies.movie have no loan; that loan 7 has no movie is allowed the other way
  // round.
  EXPECT_EQ(ask(session, "SELECT * FROM offprint_missing"),
            "lent|movies.movie|loan|1 lent|movies.movie|loan|2");
}

TEST_F(ComposeTest, BothWays) {
  sql("prices.db",
      "CREATE TABLE price(id INTEGER PRIMARY KEY, price); INSERT INTO price VALUES (2, 7)");
  sql("shop.db", "CREATE TABLE post(movie INTEGER PRIMARY KEY, stars)");
  auto session = open(R"toml(
[[view]]
name = "forum_movie"
rows = "movies.movie(title)"
own = "post(stars) KEY(movie)"
with = ["prices.price"]
)toml",
                      "prices = \"prices.db\"\n");
  EXPECT_EQ(ask(session, "UPDATE forum_movie SET stars = 4 WHERE price = 7"), "");
  EXPECT_EQ(ask(session, "SELECT * FROM forum_movie"), "1|Alien|| 2|Brazil|4|7");
  EXPECT_EQ(ask(session, "UPDATE forum_movie SET price = 1"),
            "forum_movie.price belongs to prices.price");
  sql("prices.db", "UPDATE price SET price = 8");
  EXPECT_EQ(ask(session, "SELECT price FROM forum_movie WHERE id = 2"), "8");
}

TEST_F(ComposeTest, SaysWhichRowsAreMissingOnWhichSide) {
  sql("shop.db",
      "INSERT INTO movie_shop VALUES (7, 1, 1);"
      "CREATE TABLE visit(at INTEGER PRIMARY KEY, film INT, hall TEXT);"
      "INSERT INTO visit VALUES (1, 1, 'a'), (2, 8, 'b'), (3, NULL, 'c')");
  auto session = open(std::string(kMovie) + R"toml(
[[foreign_key]]
from = "visit(film)"
to = "movies.movie(id)"
)toml");
  EXPECT_EQ(ask(session, "SELECT * FROM offprint_missing"),
            "movie|movie_shop|movies.movie|7 movie|movies.movie|movie_shop|2 "
            "visit(film)|visit|movies.movie|8");
  sql("movies.db", "INSERT INTO movie VALUES (7, '', 1), (8, '', 1)");
  EXPECT_EQ(ask(session, "SELECT \"key\" FROM offprint_missing"), "2 8");
}

TEST_F(ComposeTest, KeysOfSeveralColumnsAndOddNames) {
  sql("movies.db",
      "CREATE TABLE \"a show\"(day TEXT, \"the hall\" INT, seats INT, PRIMARY KEY(day, \"the "
      "hall\"));"
      "INSERT INTO \"a show\" VALUES ('mon', 1, 90), ('tue', 1, 80)");
  sql("shop.db",
      "CREATE TABLE sold(d TEXT, h INT, \"it's sold\" INT DEFAULT (1 + 1), UNIQUE(h, d))");
  auto session = open(R"toml(
[[view]]
name = "odd 'view'"
rows = 'movies."a show"'
own = 'sold KEY(d, h)'
)toml");
  EXPECT_EQ(ask(session, "UPDATE \"odd 'view'\" SET \"it's sold\" = 5 WHERE day = 'tue'"), "");
  EXPECT_EQ(ask(session, "INSERT INTO \"odd 'view'\"(day, \"the hall\") VALUES ('mon', 1)"), "");
  EXPECT_EQ(ask(session, "SELECT * FROM \"odd 'view'\""), "mon|1|90|2 tue|1|80|5");
  sql("movies.db", "DELETE FROM \"a show\" WHERE day = 'mon'");
  EXPECT_EQ(ask(session, "SELECT \"key\", missing_in FROM offprint_missing"),
            "'mon', 1|movies.a show");
}

TEST_F(ComposeTest, RefusesWhatDoesNotFit) {
  auto view = [](const std::string& rest) { return "[[view]]\nname = \"movie\"\n" + rest; };
  EXPECT_THAT(why_not(view("rows = \"movies.film\"")), HasSubstr("no such table: movies.film"));
  EXPECT_THAT(why_not(view("rows = \"movies.movie(name)\"")), HasSubstr("no column name"));
  EXPECT_THAT(why_not(view("rows = \"movies.movie(title,\"")), HasSubstr("shop.toml:6: "));
  EXPECT_THAT(why_not(view("rows = \"movies.movie KEY(title)\"")), HasSubstr("nor UNIQUE"));
  EXPECT_THAT(why_not(view("rows = \"movies.movie\"\nown = \"movies.movie\"")),
              HasSubstr("of the own database"));
  EXPECT_THAT(why_not(view("rows = \"movies.movie\"\nwith = [\"movies.movie\"]")),
              HasSubstr("a column of that name already"));
  EXPECT_THAT(why_not(view("rows = \"movies.movie\"\noptional = [\"x\"]")), HasSubstr("not part"));
  EXPECT_THAT(why_not("[[view]]\nname = \"movie_shop\"\nrows = \"movie_shop\""),
              HasSubstr("has a table of that name"));
  EXPECT_THAT(why_not("[[views]]\n"), HasSubstr("shop.toml:4: unknown key 'views'"));
  EXPECT_THAT(why_not("[[foreign_key]]\nfrom = \"movie_shop\"\nto = \"movies.movie(id)\""),
              HasSubstr("as many columns on both sides"));
}

TEST_F(ComposeTest, AViewAsAPublication) {
  auto spec = read(std::string(kMovie) + "[databases]\nmovies = \"library/films\"\n");
  ASSERT_TRUE(spec) << spec.error().message();
  auto session = open_session(*spec, {.composed = false});
  auto text = publication_text(*session, *spec, "cinema");
  ASSERT_TRUE(text) << text.error().message();
  EXPECT_EQ(*text, R"sql(CREATE PUBLICATION cinema FROM main, library/films AS movies AS
VIEW "movie"("id", "title", "minutes", "quantity", "price") KEY("id") AS
  SELECT t0."id", t0."title", t0."length", t1."quantity", t1."price"
  FROM "movies"."movie" t0
  LEFT JOIN "main"."movie_shop" t1 ON t1."id" = t0."id"
)sql");
  EXPECT_THAT(publication_text(*session, *spec, "No Name").error().message(),
              HasSubstr("a publication's name"));
  spec->views.clear();
  EXPECT_THAT(publication_text(*session, *spec, "cinema").error().message(),
              HasSubstr("no [[view]]"));
  EXPECT_THAT(why_not("[databases]\nnobody = \"x\"\n"), HasSubstr("no such replica"));
}

}  // namespace
}  // namespace offprint::consumer
