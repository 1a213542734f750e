// Publications of several sources: rows whose columns several databases own, joined, each source at
// a position of its own.
#include <fmt/format.h>

#include "publication/publications_testing.h"

namespace offprint::publication {
namespace {

using database::DatabaseName;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::PublicationsTest;
using Rows = std::vector<std::string>;

constexpr const char* kMovie =
    "CREATE PUBLICATION movie FROM movies, forum/ratings AS forum AS "
    "VIEW movie(id, title, price, stars) KEY(id) AS SELECT m.id, m.title, s.price, r.stars FROM "
    "movies.movie m LEFT JOIN movie_shop s ON s.id = m.id LEFT JOIN forum.rating r ON r.movie = "
    "m.id, "
    "TABLE forum.rating(movie, stars) WHERE stars > 3";

// 'shop' sells what 'movies' has and 'forum/ratings' rates.
class GatheredTest : public PublicationsTest {
 protected:
  void SetUp() override {
    PublicationsTest::SetUp();
    Publications::Options options;
    options.sweep_every = std::chrono::milliseconds(20);
    serve_with(options);
    create("movies");
    create("forum/ratings");
    sql({"CREATE TABLE movie_shop(id INTEGER PRIMARY KEY, price REAL, secret TEXT)",
         "INSERT INTO movie_shop VALUES(1, 9.5, 'x'), (2, 5, 'y')"});
    at("movies", {"CREATE TABLE movie(id INTEGER PRIMARY KEY, title TEXT COLLATE NOCASE, notes)",
                  "INSERT INTO movie VALUES(1, 'Alien', 'n'), (2, 'Brazil', 'n'), (3, 'C', 'n')"});
    at("forum/ratings", {"CREATE TABLE rating(movie INTEGER PRIMARY KEY, stars INTEGER)",
                         "INSERT INTO rating VALUES(1, 5), (3, 2)"});
  }
  void serve_with(const Publications::Options& options) {
    publications_.reset();
    publications_ = std::make_unique<Publications>(*store_, options);
  }
  void at(const std::string& database, const std::vector<std::string>& statements) {
    auto answers = run(database, statements);
    for (const auto& answer : answers.statements)
      ASSERT_EQ(answer.code, 0) << database << ": " << answer.message;
  }
  std::string refused_at(const std::string& database, const std::string& statement) {
    return run(database, {statement}).statements[0].message;
  }
  std::string position(const std::string& database) {
    return store_->info(name(database))->bookmark.text();
  }
  DatabaseName open_movie() { return open_instance("movie@v1"); }
  Rows movies(const DatabaseName& instance) {
    return rows(instance, "SELECT id, title, price, stars FROM movie ORDER BY id");
  }
};

TEST_F(GatheredTest, AnInstanceJoinsItsSourcesAndTellsTheirPositions) {
  auto made = publish(kMovie);
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_THAT(made->stored.definition,
              HasSubstr("FROM main(movie_shop(id, price)),\n  movies(movie(id, title)),\n  "
                        "forum/ratings AS forum(rating(movie, stars)) AS VIEW"));
  const DatabaseName movie = open_movie();
  EXPECT_EQ(movies(movie), (Rows{"1|Alien|9.5|5", "2|Brazil|5.0|NULL", "3|C|NULL|2"}));
  EXPECT_EQ(rows(movie, "SELECT * FROM rating"), Rows{"1|5"});
  EXPECT_EQ(rows(movie, "SELECT publication, version, parameters FROM _offprint"),
            Rows{"movie|1|"});
  EXPECT_EQ(rows(movie, "SELECT name, database, source FROM _offprint_sources ORDER BY name"),
            (Rows{"forum|forum/ratings|" + position("forum/ratings"),
                  "main|shop|" + position("shop"), "movies|movies|" + position("movies")}));
  EXPECT_EQ(rows(movie, "SELECT name FROM sqlite_schema WHERE type='table' ORDER BY 1"),
            (Rows{"_offprint", "_offprint_sources", "movie", "rating"}));
  // Each source by itself.
  const std::string shop_then = position("shop");
  at("forum/ratings", {"UPDATE rating SET stars = 4 WHERE movie = 3"});
  wait_for([&] { return movies(movie)[2] == "3|C|NULL|4"; });
  EXPECT_EQ(rows(movie, "SELECT source FROM _offprint_sources ORDER BY name"),
            (Rows{position("forum/ratings"), shop_then, position("movies")}));
  EXPECT_EQ(rows(movie, "SELECT count(*) FROM rating"), Rows{"2"});
  at("movies", {"DELETE FROM movie WHERE id = 1"});
  wait_for([&] { return movies(movie).size() == 2; });
  sql({"INSERT INTO movie_shop VALUES(3, 1, 'z')"});
  wait_for([&] { return movies(movie)[1] == "3|C|1.0|4"; });
  // What nobody publishes changes nothing.
  const TxId before = store_->position(movie)->txid;
  at("movies", {"UPDATE movie SET notes = 'other'"});
  sql({"UPDATE movie_shop SET secret = 'other', price = price + 1 WHERE id = 2"});
  wait_for([&] { return movies(movie)[0] == "2|Brazil|6.0|NULL"; });
  EXPECT_EQ(store_->position(movie)->txid.value, before.value + 1);
}

TEST_F(GatheredTest, AllIsThereAgainAfterAStart) {
  ASSERT_TRUE(publish(kMovie));
  const DatabaseName movie = open_movie();
  const Bookmark then = store_->info(movie)->bookmark;
  publications_.reset();
  open();
  at("movies", {"INSERT INTO movie VALUES(4, 'Dune', 'n')"});
  at("forum/ratings", {"INSERT INTO rating VALUES(4, 5)"});
  serve();
  EXPECT_EQ(open_movie(), movie);
  EXPECT_EQ(movies(movie)[3], "4|Dune|NULL|5");
  EXPECT_EQ(store_->info(movie)->bookmark.lineage, then.lineage);
  EXPECT_LE(store_->info(movie)->bookmark.txid.value, then.txid.value + 2) << "not made anew";
  wait_for([&] { return publications_->status(name("shop"))->instances == 1; });
  EXPECT_EQ(publications_->instances_of(name("shop")).size(), 1u);
  EXPECT_TRUE(publications_->instances_of(name("movies")).empty()) << "parts are none";
  EXPECT_TRUE(publications_->find_open(name("shop"), {"movie", 1}, {}));
  ASSERT_TRUE(publications_->drop(name("shop"), {"movie", {}}));
  EXPECT_TRUE(store_->list("@", "", 100).empty());
  EXPECT_FALSE(publications_->open(name("shop"), {"movie", {}}, {}));
}

TEST_F(GatheredTest, WhatDoesNotFitIsRefused) {
  auto expect_refused = [&](const std::string& from, const std::string& items,
                            const std::string& why) {
    EXPECT_THAT(refusal("CREATE PUBLICATION p FROM " + from + " AS " + items), HasSubstr(why))
        << from << " AS " << items;
  };
  at("movies", {"CREATE TABLE bare(a)", "CREATE VIEW v AS SELECT 1 AS id"});
  expect_refused("nobody", "TABLE nobody.t(*)", "FROM nobody: no database 'nobody'");
  expect_refused("shop", "TABLE shop.movie_shop(*)", "that is the database itself");
  expect_refused("movies, movies AS m", "TABLE m.movie(*)", "movies is there twice");
  expect_refused("movies AS a, \"forum/ratings\" AS a", "TABLE a.movie(*)", "another name than a");
  expect_refused("movies", "TABLE movies.none(*)", "no such table");
  expect_refused("movies", "TABLE movie(*)", "TABLE main.movie: there is no such table");
  expect_refused("movies", "TABLE m.movie(*)", "FROM has no m");
  expect_refused("movies", "TABLE movies.bare(a)", "no PRIMARY KEY");
  expect_refused("movies", "TABLE movies.v(id)", "it is a view");
  expect_refused("movies", "TABLE movies.movie(id, none)", "no such column: none");
  expect_refused("movies", "TABLE movie_shop(id)", "FROM movies: nothing of it is published");
  expect_refused("movies",
                 "VIEW v(id) KEY(id) AS SELECT id FROM movies.movie NATURAL JOIN movie_shop",
                 "NATURAL");
  expect_refused("movies", "TABLE movies.movie(id) AS _offprint_sources", "cannot be the name");
  expect_refused("movies", "TABLE movies.movie(id, date('now') AS d)", "depends on the moment");
}

TEST_F(GatheredTest, NamesMeanWhatTheyMeanToSqlite) {
  at("movies", {"CREATE TABLE movie_shop(id INTEGER PRIMARY KEY, place TEXT)",
                "INSERT INTO movie_shop VALUES(1, 'A1')"});
  const std::string made = refusal(
      "CREATE PUBLICATION p(least INTEGER) FROM movies AS m, forum/ratings AS r AS "
      "TABLE main.movie_shop(id, price), TABLE m.movie_shop(*) AS places, "
      "VIEW by_place(place, n, stars) KEY(place) AS SELECT place, count(*), sum(rating.stars) FROM "
      "m.movie_shop p JOIN r.rating ON r.rating.movie = p.id WHERE r.rating.stars > :least GROUP "
      "BY place, "
      "VIEW rated(id, title) KEY(id) AS SELECT movie.id, movie.title FROM m.movie WHERE EXISTS "
      "(SELECT 1 FROM r.rating x WHERE x.movie = movie.id AND x.stars > :least), "
      "VIEW pairs(id, title, stars) KEY(id) AS SELECT a.id, a.title, b.stars FROM m.movie a JOIN "
      "(SELECT movie AS id, stars FROM r.rating) b USING(id) REFRESH FULL");
  ASSERT_EQ(made, "none");
  const DatabaseName one = open_instance("p", {{"least", "3"}});
  EXPECT_EQ(rows(one, "SELECT * FROM movie_shop"), (Rows{"1|9.5", "2|5.0"}));
  EXPECT_EQ(rows(one, "SELECT * FROM places"), Rows{"1|A1"});
  EXPECT_EQ(rows(one, "SELECT * FROM by_place"), Rows{"A1|1|5"});
  EXPECT_EQ(rows(one, "SELECT * FROM rated"), Rows{"1|Alien"});
  EXPECT_EQ(rows(one, "SELECT * FROM pairs"), (Rows{"1|Alien|5", "3|C|2"}));
  at("forum/ratings", {"UPDATE rating SET stars = stars + 2"});
  wait_for([&] {
    return rows(one, "SELECT * FROM rated") == Rows{"1|Alien", "3|C"} &&
           rows(one, "SELECT * FROM by_place") == Rows{"A1|1|7"} &&
           rows(one, "SELECT stars FROM pairs") == Rows{"7", "4"};
  });
}

// Rows that any of the sources has, each kept by its key.
TEST_F(GatheredTest, AFullJoinHasWhatAnyOfThemHas) {
  ASSERT_EQ(refusal("CREATE PUBLICATION p FROM movies AS VIEW every(id, title, price) KEY(id) AS "
                    "SELECT id, m.title, price FROM movies.movie m FULL JOIN movie_shop USING(id)"),
            "none");
  sql({"INSERT INTO movie_shop VALUES(7, 2, '')"});
  const DatabaseName every = open_instance("p");
  const char* all = "SELECT * FROM every ORDER BY 1";
  EXPECT_EQ(rows(every, all), (Rows{"1|Alien|9.5", "2|Brazil|5.0", "3|C|NULL", "7|NULL|2.0"}));
  at("movies", {"INSERT INTO movie VALUES(7, 'Z', '')", "DELETE FROM movie WHERE id < 3"});
  wait_for(
      [&] { return rows(every, all) == Rows{"1|NULL|9.5", "2|NULL|5.0", "3|C|NULL", "7|Z|2.0"}; });
  sql({"DELETE FROM movie_shop WHERE id < 7"});
  wait_for([&] { return rows(every, all) == Rows{"3|C|NULL", "7|Z|2.0"}; });
  auto expect_refused = [&](const std::string& select, const std::string& why) {
    EXPECT_THAT(refusal("CREATE PUBLICATION q FROM movies, forum/ratings AS r AS VIEW v(id, x) "
                        "KEY(id) AS " +
                        select + ", TABLE r.rating(*)"),
                HasSubstr(why))
        << select;
  };
  expect_refused("SELECT m.id, title FROM movies.movie m FULL JOIN r.rating ON movie = id",
                 "no USING of one column");
  expect_refused("SELECT m.id, title FROM movies.movie m FULL JOIN movie_shop USING(id)",
                 "its KEY is not the column of USING");
  expect_refused("SELECT id, count(*) FROM movies.movie FULL JOIN movie_shop USING(id) GROUP BY id",
                 "GROUP");
  expect_refused(
      "SELECT id, title FROM movies.movie FULL JOIN movie_shop USING(id) LEFT JOIN r.rating ON "
      "movie = id",
      "LEFT");
  at("movies", {"CREATE TABLE loose(id TEXT PRIMARY KEY, x)"});
  expect_refused("SELECT id, x FROM movies.loose FULL JOIN movie_shop USING(id)",
                 "id is not the primary key of movies.loose, NOT NULL");
}

TEST_F(GatheredTest, AChangeOfASourceThatBreaksAVersionIsRefused) {
  ASSERT_TRUE(publish(kMovie));
  EXPECT_THAT(refused_at("movies", "ALTER TABLE movie DROP COLUMN title"),
              AllOf(HasSubstr("PUBLICATION_BROKEN: shop/pub/movie@v1 takes of this database"),
                    HasSubstr("No consumer is registered")));
  EXPECT_THAT(refused_at("forum/ratings", "DROP TABLE rating"), HasSubstr("PUBLICATION_BROKEN"));
  EXPECT_THAT(refused_at("shop", "ALTER TABLE movie_shop RENAME COLUMN price TO cost"),
              HasSubstr("PUBLICATION_BROKEN"));
  // What is not taken is free, and so is what nobody publishes any more.
  at("movies", {"ALTER TABLE movie DROP COLUMN notes", "ALTER TABLE movie ADD COLUMN more"});
  publications_.reset();
  open();
  serve();
  ASSERT_TRUE(publications_->register_consumer(name("shop"), {"movie", 1}, "till",
                                               {{"q.sql", "SELECT title FROM movie"}}));
  EXPECT_THAT(refused_at("movies", "DROP TABLE movie"), HasSubstr("Registered with it: till."));
  EXPECT_EQ(publications_->describe(name("shop"), {"movie", 1})->broken, "");
  ASSERT_TRUE(publications_->set_state(name("shop"), {"movie", 1},
                                       database::StoredPublication::State::kRetired));
  at("movies", {"DROP TABLE movie"});
}

TEST_F(GatheredTest, ASourceThatIsGoneLeavesItsPartUntilItComesBack) {
  ASSERT_TRUE(publish(kMovie));
  const DatabaseName movie = open_movie();
  const std::string rated_then =
      rows(movie, "SELECT source FROM _offprint_sources WHERE name='forum'")[0];
  ASSERT_TRUE(store_->drop(name("forum/ratings")));
  at("movies", {"UPDATE movie SET title = 'Aliens' WHERE id = 1"});
  wait_for([&] { return movies(movie)[0] == "1|Aliens|9.5|5"; });
  EXPECT_EQ(rows(movie, "SELECT source FROM _offprint_sources WHERE name='forum'")[0], rated_then);
  wait_for([&] {
    return publications_->describe(name("shop"), {"movie", 1})->broken.find("forum/ratings") !=
           std::string::npos;
  });
  EXPECT_EQ(open_movie(), movie) << "it can still be had";
  // Another one of that name: the difference is written.
  create("forum/ratings");
  at("forum/ratings", {"CREATE TABLE rating(movie INTEGER PRIMARY KEY, stars INTEGER)",
                       "INSERT INTO rating VALUES(1, 5), (2, 4)"});
  wait_for(
      [&] { return movies(movie) == Rows{"1|Aliens|9.5|5", "2|Brazil|5.0|4", "3|C|NULL|NULL"}; });
  EXPECT_NE(rows(movie, "SELECT source FROM _offprint_sources WHERE name='forum'")[0], rated_then);
  wait_for([&] {
    return refused_at("forum/ratings", "ALTER TABLE rating RENAME COLUMN stars TO s")
               .find("PUBLICATION_BROKEN") != std::string::npos;
  });
}

TEST_F(GatheredTest, ASourceMayGoBackInTime) {
  ASSERT_TRUE(publish(kMovie));
  const DatabaseName movie = open_movie();
  const Bookmark then = store_->info(name("movies"))->bookmark;
  at("movies", {"DELETE FROM movie WHERE id < 3", "INSERT INTO movie VALUES(9, 'Z', 'n')"});
  wait_for([&] { return movies(movie) == Rows{"3|C|NULL|2", "9|Z|NULL|NULL"}; });
  auto past = store_->snapshot_at(name("movies"), {then});
  ASSERT_TRUE(past) << past.error().message();
  ASSERT_TRUE(store_->rewrite(name("movies"), **past));
  wait_for(
      [&] { return movies(movie) == Rows{"1|Alien|9.5|5", "2|Brazil|5.0|NULL", "3|C|NULL|2"}; });
  EXPECT_EQ(rows(movie, "SELECT source FROM _offprint_sources WHERE name='movies'")[0],
            position("movies"));
  EXPECT_EQ(rows(movie, "SELECT count(*) FROM _offprint"), Rows{"1"});
}

TEST_F(GatheredTest, WhatIsUsedIsKeptAndWhatIsNotGoes) {
  Publications::Options options;
  options.sweep_every = std::chrono::milliseconds(20);
  options.rest_instance_after = std::chrono::milliseconds(100);
  options.drop_instance_after = std::chrono::milliseconds(100);
  serve_with(options);
  ASSERT_TRUE(publish(kMovie));
  const DatabaseName movie = open_movie();
  auto lease = publications_->lease(name("shop"), movie);
  const Deadline until = SteadyClock::now() + std::chrono::milliseconds(400);
  for (int i = 0; SteadyClock::now() < until; ++i) {
    at("movies", {fmt::format("UPDATE movie SET title='{}' WHERE id=1", i)});
    wait_for([&] { return movies(movie)[0] == fmt::format("1|{}|9.5|5", i); });
  }
  EXPECT_TRUE(lease->goes_on());
  lease.reset();
  wait_for([&] { return store_->list("@", "", 100).empty(); });
  EXPECT_EQ(movies(open_movie()).size(), 3u);
  // With its home all of it goes.
  ASSERT_TRUE(store_->drop(name("shop")));
  wait_for([&] { return store_->list("@", "", 100).empty(); });
}

TEST_F(GatheredTest, ADraftMayTakeOtherSources) {
  using State = database::StoredPublication::State;
  ASSERT_TRUE(publications_->create(
      name("shop"), "CREATE PUBLICATION p FROM movies AS TABLE movies.movie(id, title)",
      State::kDraft));
  const DatabaseName first = open_instance("p@v1");
  EXPECT_EQ(rows(first, "SELECT count(*) FROM movie"), Rows{"3"});
  ASSERT_TRUE(publications_->create(
      name("shop"), "CREATE PUBLICATION p FROM forum/ratings AS f AS TABLE f.rating(*)",
      State::kDraft));
  EXPECT_EQ(rows(open_instance("p@v1"), "SELECT count(*) FROM rating"), Rows{"2"});
  at("movies", {"DROP TABLE movie"});
  ASSERT_TRUE(publications_->set_state(name("shop"), {"p", 1}, State::kPublished));
  EXPECT_THAT(refused_at("forum/ratings", "DROP TABLE rating"), HasSubstr("PUBLICATION_BROKEN"));
  EXPECT_TRUE(publications_->rebuild(name("shop")));
  EXPECT_TRUE(publications_->set_quota(name("shop"), {"p", 1}, {1'000'000, 0}));
}

}  // namespace
}  // namespace offprint::publication
