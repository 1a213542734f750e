// Random work on several sources: whatever an instance of them says its positions are, it is what
// its definition, as it is written, says of databases attached at these positions. Meanwhile
// publications end and begin again, schemas change, a source goes back in time or is another one
// of its name. OFFPRINT_TEST_ROUNDS says how many steps in tens, OFFPRINT_TEST_SEED adds to seeds.
#include <algorithm>
#include <cstdlib>
#include <random>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/publications_testing.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

using database::DatabaseName;
using testing::PublicationsTest;

struct Item {
  std::string name, declared, truth;  // in the definition; the SELECT that it means
};

// A view, whose text is its own truth.
Item view(const std::string& name, const std::string& columns, const std::string& key,
          const std::string& select, const std::string& more = {}) {
  return {name, fmt::format("VIEW {}({}) KEY({}) AS {}{}", name, columns, key, select, more),
          select};
}

const std::vector<Item>& items() {
  static const std::vector<Item> all = {
      view("joined", "id, title, stars, price", "id",
           "SELECT m.id, m.title, s.stars, o.price FROM movies.movie m LEFT JOIN r.score s ON "
           "s.movie = m.id LEFT JOIN offer o ON o.id = m.id"),
      view("good", "id, title, stars", "id",
           "SELECT m.id, m.title, stars FROM movies.movie AS m JOIN r.score ON score.movie = m.id "
           "WHERE stars >= :least"),
      {"cast",
       "TABLE movies.\"cast\"(movie_id, actor) WHERE movie_id IN (SELECT movie FROM r.score WHERE "
       "stars >= :least)",
       "SELECT movie_id, actor FROM movies.\"cast\" WHERE movie_id IN (SELECT movie FROM r.score "
       "WHERE stars >= :least)"},
      {"unrated",
       "TABLE main.offer(id, price) AS unrated WHERE EXISTS (SELECT 1 FROM movies.movie m WHERE "
       "m.id = offer.movie AND NOT EXISTS (SELECT 1 FROM r.score s WHERE s.movie = m.id))",
       "SELECT id, price FROM offer WHERE movie IN (SELECT id FROM movies.movie WHERE id NOT IN "
       "(SELECT movie FROM r.score))"},
      view("directors", "director, n, stars, price", "director",
           "SELECT m.director, count(*), sum(s.stars), max(o.price) FROM movies.movie m JOIN "
           "r.score s ON s.movie = m.id JOIN main.offer o ON o.movie = m.id GROUP BY m.director"),
      view("everything", "id, title, stars", "id",
           "SELECT coalesce(m.id, s.movie), m.title, s.stars FROM movies.movie m FULL JOIN r.score "
           "s ON s.movie = m.id",
           " REFRESH FULL"),
      view("whole", "id, title, price, text", "id",
           "SELECT id, m.title, o.price, n.text FROM movies.movie m FULL JOIN offer o USING(id) "
           "FULL "
           "JOIN r.note AS n USING(id) WHERE m.id IS NULL OR m.id < 50"),
  };
  return all;
}

int number_from(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::atoi(text) : otherwise;
}

// Tables of a source as SQL, of a schema.
std::vector<std::string> tables_of(const std::string& source, const std::string& schema) {
  if (source == "movies") {
    return {"CREATE TABLE " + schema +
                "movie(id INTEGER PRIMARY KEY, title TEXT COLLATE NOCASE, director TEXT, secret)",
            "CREATE TABLE " + schema +
                "\"cast\"(movie_id INTEGER, actor TEXT, PRIMARY KEY(movie_id, actor)) WITHOUT "
                "ROWID"};
  }
  if (source == "ratings")
    return {"CREATE TABLE " + schema + "score(movie INTEGER PRIMARY KEY, stars, voters)",
            "CREATE TABLE " + schema + "note(id INTEGER PRIMARY KEY, text)"};
  return {"CREATE TABLE " + schema + "offer(id INTEGER PRIMARY KEY, movie INTEGER, price REAL)"};
}

class GatheredOracleTest : public PublicationsTest, public ::testing::WithParamInterface<int> {
 protected:
  int pick(int below) { return static_cast<int>(random_() % static_cast<unsigned>(below)); }
  void serve_anew() {
    Publications::Options options;
    options.sweep_every = std::chrono::milliseconds(30);
    publications_.reset();
    publications_ = std::make_unique<Publications>(*store_, options);
  }
  void make(const std::string& source) {
    create(source);
    run(source, tables_of(source, ""));
  }
  std::string statement(const std::string& source);
  void step(int number);
  // Rows of all items as the definition says of the sources at these positions; false: one of
  // these is of a source that is not there any more.
  bool truth(const std::vector<std::pair<std::string, Bookmark>>& positions, int least,
             std::vector<std::string>& to);
  void check(int least, int number);
  void expect_newest(int least);
  static std::string text_of(const Row& row) {
    std::string text;
    for (const sqlite::Value& value : row) append_exactly(text, value);
    return text;
  }

  std::mt19937 random_{static_cast<unsigned>(GetParam()) +
                       static_cast<unsigned>(number_from("OFFPRINT_TEST_SEED", 0))};
  int checked_ = 0;
};

std::string GatheredOracleTest::statement(const std::string& source) {
  const int id = pick(60);
  if (source == "ratings") {
    switch (pick(6)) {
      case 4:
        return fmt::format("DELETE FROM note WHERE id BETWEEN {} AND {}", id, id + pick(9));
      case 5:
        return fmt::format("INSERT OR REPLACE INTO note VALUES({}, {})", id, pick(6));
      case 0:
        return fmt::format("DELETE FROM score WHERE movie BETWEEN {} AND {}", id, id + pick(9));
      case 1:
        return fmt::format("UPDATE score SET voters = voters + 1 WHERE movie % 3 = {}", pick(3));
      default:
        return fmt::format("INSERT OR REPLACE INTO score VALUES({}, {}, 1)", id, pick(6));
    }
  }
  if (source == "shop") {
    switch (pick(4)) {
      case 0:
        return fmt::format("DELETE FROM offer WHERE movie = {}", id);
      case 1:
        return fmt::format("UPDATE offer SET movie = {}, price = price + 1 WHERE id = {}", id,
                           pick(60));
      default:
        return fmt::format("INSERT OR REPLACE INTO offer VALUES({}, {}, {})", pick(60), id,
                           pick(30));
    }
  }
  switch (pick(7)) {
    case 0:
      return fmt::format("DELETE FROM movie WHERE id BETWEEN {} AND {}", id, id + pick(9));
    case 1:
      return fmt::format("UPDATE movie SET director = {} WHERE id % 5 = {}",
                         pick(9) == 0 ? "NULL" : fmt::format("'d{}'", pick(5)), pick(5));
    case 2:
      return fmt::format("UPDATE movie SET secret = randomblob({}) WHERE id = {}", pick(9000), id);
    case 3:
      return fmt::format("INSERT OR IGNORE INTO \"cast\" VALUES({}, 'a{}')", id, pick(9));
    case 4:
      return fmt::format("UPDATE OR REPLACE \"cast\" SET movie_id = {} WHERE actor = 'a{}'", id,
                         pick(9));
    default:
      return fmt::format("INSERT OR REPLACE INTO movie VALUES({}, '{}{}', 'd{}', 's')", id,
                         pick(2) == 0 ? "T" : "t", pick(30), pick(5));
  }
}

void GatheredOracleTest::step(int number) {
  const std::string source =
      std::array{"shop", "movies", "ratings"}[static_cast<std::size_t>(pick(3))];
  if (number % 50 == 20) {
    run(source, {fmt::format("ALTER TABLE {} ADD COLUMN more{}",
                             source == "shop"     ? "offer"
                             : source == "movies" ? "movie"
                                                  : "score",
                             number)});
  } else if (number % 50 == 35) {
    const Bookmark then = store_->info(name("movies"))->bookmark;
    run("movies", {"DELETE FROM movie WHERE id % 2 = 0", "DELETE FROM \"cast\""});
    auto past = store_->snapshot_at(name("movies"), {then});
    ASSERT_TRUE(past) << past.error().message();
    ASSERT_TRUE(store_->rewrite(name("movies"), **past));
  } else if (number % 30 == 25) {
    ASSERT_TRUE(store_->drop(name("ratings")));
    make("ratings");
  } else if (number % 40 == 10) {
    serve_anew();
  } else {
    std::vector<std::string> statements = {"BEGIN"};
    for (int i = pick(4); i >= 0; --i) statements.push_back(statement(source));
    statements.emplace_back(pick(10) == 0 ? "ROLLBACK" : "COMMIT");
    run(source, statements);
  }
}

bool GatheredOracleTest::truth(const std::vector<std::pair<std::string, Bookmark>>& positions,
                               int least, std::vector<std::string>& to) {
  auto attached = sqlite::Connection::open(":memory:", {.create = true});
  EXPECT_TRUE(attached->execute("ATTACH ':memory:' AS movies; ATTACH ':memory:' AS r"));
  const std::map<std::string, std::string> schemas = {
      {"movies", "movies."}, {"ratings", "r."}, {"shop", "main."}};
  for (const auto& [source, position] : positions) {
    auto state = SourceState::at(*store_, name(source), position);
    if (!state) return false;
    const std::string& schema = schemas.at(source);
    for (const std::string& sql : tables_of(source, schema))
      EXPECT_TRUE(attached->execute(sql.c_str()));
    std::vector<std::pair<std::string, std::size_t>> tables = {{"movie", 4}, {"\"cast\"", 2}};
    if (source == "shop") tables = {{"offer", 3}};
    if (source == "ratings") tables = {{"score", 3}, {"note", 2}};
    for (const auto& [table, columns] : tables) {
      const std::vector<const char*> marks(columns, "?");
      auto insert = attached->prepare(
          fmt::format("INSERT INTO {}{} VALUES({})", schema, table, fmt::join(marks, ",")));
      auto copied = (*state)->rows("SELECT * FROM " + table, {}, {}, [&](Row row) -> Result<> {
        // Columns that were added are nobody's.
        for (int i = 0; i < sqlite3_bind_parameter_count(insert->handle()); ++i)
          OFFPRINT_TRY(insert->bind_value(i + 1, row[static_cast<std::size_t>(i)]));
        return insert->run();
      });
      EXPECT_TRUE(copied) << copied.error().message();
    }
  }
  for (const Item& item : items()) {
    auto select = attached->prepare(item.truth);
    if (!select) ADD_FAILURE() << item.truth << ": " << select.error().message();
    if (const int index = sqlite3_bind_parameter_index(select->handle(), ":least"); index > 0)
      select->bind(index, std::int64_t{least});
    while (*select->step()) to.push_back(item.name + ": " + text_of(row_of(*select)));
  }
  std::ranges::sort(to);
  return true;
}

void GatheredOracleTest::check(int least, int number) {
  const DatabaseName instance = open_instance("all", {{"least", fmt::format("{}", least)}});
  auto state = SourceState::newest(*store_, instance);
  ASSERT_TRUE(state);
  std::vector<std::pair<std::string, Bookmark>> positions;
  ASSERT_TRUE((*state)->rows(
      "SELECT database, source FROM _offprint_sources", {}, {}, [&](Row row) -> Result<> {
        positions.emplace_back(std::get<std::string>(row[0]),
                               *Bookmark::parse(std::get<std::string>(row[1])));
        return {};
      }));
  ASSERT_EQ(positions.size(), 3u);
  std::vector<std::string> expected, found;
  if (!truth(positions, least, expected)) return;
  for (const Item& item : items()) {
    ASSERT_TRUE(
        (*state)->rows("SELECT * FROM " + quoted_name(item.name), {}, {}, [&](Row row) -> Result<> {
          found.push_back(item.name + ": " + text_of(row));
          return {};
        }));
  }
  std::ranges::sort(found);
  ASSERT_EQ(found, expected) << "seed " << GetParam() << ", step " << number;
  ++checked_;
}

// In the end it is what the sources are now.
void GatheredOracleTest::expect_newest(int least) {
  std::vector<std::pair<std::string, Bookmark>> positions;
  for (const char* source : {"shop", "movies", "ratings"})
    positions.emplace_back(source, store_->info(name(source))->bookmark);
  std::vector<std::string> expected, found;
  ASSERT_TRUE(truth(positions, least, expected));
  const DatabaseName instance = open_instance("all", {{"least", fmt::format("{}", least)}});
  for (Deadline until = SteadyClock::now() + std::chrono::seconds(20);
       SteadyClock::now() < until;) {
    found.clear();
    auto state = SourceState::newest(*store_, instance);
    for (const Item& item : items()) {
      ASSERT_TRUE((*state)->rows("SELECT * FROM " + quoted_name(item.name), {}, {},
                                 [&](Row row) -> Result<> {
                                   found.push_back(item.name + ": " + text_of(row));
                                   return {};
                                 }));
    }
    std::ranges::sort(found);
    if (found == expected) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  ASSERT_EQ(found, expected) << "seed " << GetParam();
}

TEST_P(GatheredOracleTest, InstancesAreWhatTheirDefinitionsSayAtTheirPositions) {
  serve_anew();
  run("shop", tables_of("shop", ""));
  make("movies");
  make("ratings");
  std::vector<std::string> declared;
  for (const Item& item : items()) declared.push_back(item.declared);
  ASSERT_EQ(refusal(fmt::format("CREATE PUBLICATION \"all\"(least INTEGER) FROM movies, ratings AS "
                                "r AS {}",
                                fmt::join(declared, ", "))),
            "none");
  const int steps = 10 * number_from("OFFPRINT_TEST_ROUNDS", 12);
  for (int number = 0; number < steps; ++number) {
    ASSERT_NO_FATAL_FAILURE(step(number));
    if (pick(3) == 0) continue;  // several at once
    for (int least : {2, 4}) ASSERT_NO_FATAL_FAILURE(check(least, number));
  }
  for (int least : {2, 4}) ASSERT_NO_FATAL_FAILURE(expect_newest(least));
  EXPECT_GT(checked_, steps / 2) << "most positions can be checked";
}

INSTANTIATE_TEST_SUITE_P(Seeds, GatheredOracleTest, ::testing::Range(1, 4));

}  // namespace
}  // namespace offprint::publication
