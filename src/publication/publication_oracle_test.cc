// Random work on a source: at each state that instances are at, they are what their definitions say
// of it, whatever was asked of SQLite. OFFPRINT_TEST_ROUNDS says how many steps in tens,
// OFFPRINT_TEST_SEED adds to the seeds.
#include <algorithm>
#include <cstdlib>
#include <random>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/publications_testing.h"
#include "publication/seeded_bug.h"

namespace offprint::publication {
namespace {

using database::DatabaseName;
using testing::PublicationsTest;

// Something published, and the SELECT on the source that it must equal.
struct Published {
  std::string name;
  std::vector<std::string> columns;
  std::string truth;
};

constexpr const char* kMine =
    "CREATE PUBLICATION mine(tenant INTEGER) AS "
    "TABLE orders(id, customer, total*2 AS twice) WHERE tenant = :tenant AND total > 3,"
    "TABLE items(*) WHERE order_id IN (SELECT id FROM orders WHERE tenant=:tenant),"
    "TABLE notes(*) WHERE item IN (SELECT sku FROM items WHERE order_id IN (SELECT id FROM orders "
    "WHERE tenant = :tenant AND total > 3)),"
    "VIEW wide(id, customer, n, zone) KEY(id) AS SELECT o.id, o.customer, (SELECT count(*) FROM "
    "items i WHERE i.order_id = o.id AND qty > 1), c.zone FROM orders o LEFT JOIN customers c ON "
    "c.name = o.customer WHERE o.tenant = :tenant AND NOT EXISTS (SELECT 1 FROM items i JOIN notes "
    "n ON n.item = i.sku WHERE i.order_id = o.id AND n.stop),"
    "VIEW sums(order_id, n, total, least) KEY(order_id) AS SELECT i.order_id, count(*), "
    "sum(i.qty), min(i.sku) FROM items i JOIN orders o ON o.id = i.order_id WHERE o.tenant = "
    ":tenant GROUP BY 1 HAVING count(*) > 1,"
    "VIEW lonely(id) KEY(id) AS SELECT o.id FROM orders o LEFT JOIN items i ON i.order_id = o.id "
    "WHERE i.sku IS NULL AND o.tenant = :tenant,"
    "TABLE items(sku, qty) AS dear WHERE EXISTS (SELECT 1 FROM orders o WHERE o.id = order_id AND "
    "o.tenant = :tenant AND o.total > 50) AND qty IS NOT NULL,"
    "VIEW pairs(order_id, other, n) KEY(order_id, other) AS SELECT DISTINCT o.id, p.id, o.total + "
    "p.total FROM orders o, orders p WHERE p.customer = o.customer COLLATE BINARY AND p.id > o.id "
    "AND o.tenant = :tenant AND p.id IN (SELECT order_id FROM items WHERE qty > 2),"
    "VIEW totals(customer, n, total) KEY(customer) AS SELECT coalesce(customer, '-'), "
    "count(*), sum(total) FROM orders WHERE tenant=:tenant GROUP BY 1 REFRESH FULL,"
    "INDEX orders(customer, twice)";

std::vector<Published> mine(const std::string& tenant) {
  const std::string orders = "SELECT id FROM orders WHERE tenant=" + tenant;
  return {
      {"orders",
       {"id", "customer", "twice"},
       "SELECT id, customer, total*2 AS twice FROM orders WHERE total > 3 AND tenant=" + tenant},
      {"items",
       {"sku", "order_id", "qty"},
       "SELECT * FROM items WHERE order_id IN (" + orders + ")"},
      {"notes",
       {"id", "item", "stop"},
       "SELECT * FROM notes WHERE item IN (SELECT sku FROM items WHERE order_id IN (" + orders +
           " AND total > 3))"},
      {"wide",
       {"id", "customer", "n", "zone"},
       "SELECT o.id, customer, (SELECT count(*) FROM items WHERE order_id=o.id AND qty>1) AS n, "
       "zone FROM orders o LEFT JOIN customers c ON c.name=customer WHERE o.id NOT IN (SELECT "
       "order_id FROM items JOIN notes ON item=sku WHERE stop) AND tenant=" +
           tenant},
      {"sums",
       {"order_id", "n", "total", "least"},
       "SELECT order_id, count(*) AS n, sum(qty) AS total, min(sku) AS least FROM items WHERE "
       "order_id IN (" +
           orders + ") GROUP BY order_id HAVING count(*) > 1"},
      {"lonely", {"id"}, orders + " AND NOT EXISTS (SELECT 1 FROM items WHERE order_id=orders.id)"},
      {"dear",
       {"sku", "qty"},
       "SELECT sku, qty FROM items WHERE qty IS NOT NULL AND order_id IN (" + orders +
           " AND total > 50)"},
      {"pairs",
       {"order_id", "other", "n"},
       "SELECT o.id AS order_id, p.id AS other, o.total + p.total AS n FROM orders o JOIN orders p "
       "ON CAST(p.customer AS BLOB) = CAST(o.customer AS BLOB) AND typeof(p.customer) = "
       "typeof(o.customer) AND p.id > o.id WHERE EXISTS (SELECT 1 FROM items WHERE order_id = p.id "
       "AND qty > 2) AND o.tenant=" +
           tenant},
      // Which spelling stands for those that its collation finds equal is SQLite's choice.
      {"totals",
       {"n", "total"},
       "SELECT count(*) AS n, sum(total) AS total FROM orders WHERE tenant=" + tenant +
           " GROUP BY coalesce(customer, '-')"},
  };
}

const std::vector<Published>& all_of_it() {
  static const std::vector<Published> all = {
      {"pairs", {"a", "b", "c"}, "SELECT * FROM pairs"},
      {"items", {"sku", "qty"}, "SELECT sku, qty FROM items WHERE qty > 2 OR qty IS NULL"},
      {"orders", {"id", "tenant"}, "SELECT id, tenant FROM orders"}};
  return all;
}

int number_from(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::atoi(text) : otherwise;
}

class PublicationOracleTest : public PublicationsTest, public ::testing::WithParamInterface<int> {
 protected:
  struct Watched {
    std::string publication;
    Given given;
    std::vector<Published> items;
  };
  void make_source();
  int pick(int below) { return static_cast<int>(random_() % static_cast<unsigned>(below)); }
  std::string value();
  std::string statement();
  std::string other_statement(int id);
  std::vector<std::string> transaction(int step);
  std::vector<std::string> sorted(const DatabaseName& database, const Published& item,
                                  const std::string& from);
  void check(const Watched& watched, int step);
  // Random work; what an instance has that its definition does not say is told by the test itself,
  // or, with `stops`, ends the work: true.
  bool work(int steps, bool stops);
  bool is_right(const Watched& watched);

  std::mt19937 random_{static_cast<unsigned>(GetParam()) +
                       static_cast<unsigned>(number_from("OFFPRINT_TEST_SEED", 0))};
};

void PublicationOracleTest::make_source() {
  sql(
      {"CREATE TABLE orders(id INTEGER PRIMARY KEY, tenant, customer TEXT COLLATE NOCASE, secret, "
       "total INTEGER)",
       "CREATE TABLE items(sku TEXT PRIMARY KEY, order_id INTEGER, qty) WITHOUT ROWID",
       "CREATE TABLE notes(id INTEGER PRIMARY KEY, item TEXT, stop)",
       "CREATE TABLE customers(name TEXT PRIMARY KEY, zone)",
       "CREATE TABLE pairs(a, b COLLATE NOCASE, c, PRIMARY KEY(a, b))",
       "CREATE TABLE unpublished(x)", "CREATE INDEX items_order ON items(order_id)",
       "CREATE INDEX orders_customer ON orders(customer COLLATE BINARY)",
       "CREATE INDEX notes_item ON notes(item)",
       "CREATE TRIGGER gone AFTER DELETE ON orders BEGIN DELETE FROM items WHERE "
       "order_id=old.id; END"});
}

std::string PublicationOracleTest::value() {
  switch (pick(6)) {
    case 0:
      return "NULL";
    case 1:
      return fmt::format("{}", pick(50));
    case 2:
      return fmt::format("{}.5", pick(50));
    case 3:
      return fmt::format("'{}'", pick(50));
    case 4:
      return fmt::format("randomblob({})", pick(pick(20) == 0 ? 20000 : 40));
    default:
      return fmt::format("'Text {}'", pick(1000));
  }
}

std::string PublicationOracleTest::other_statement(int id) {
  switch (pick(13)) {
    case 0:
      return fmt::format("INSERT OR REPLACE INTO notes VALUES({}, 'i{}', {})", pick(60), pick(200),
                         pick(9) == 0);
    case 1:
      return fmt::format("UPDATE notes SET stop=NOT stop WHERE id%9={}", pick(9));
    case 2:
      return fmt::format("DELETE FROM notes WHERE id%11={}", pick(11));
    case 3:
      return fmt::format("INSERT OR REPLACE INTO customers VALUES({}, {})", value(), value());
    case 4:
      return fmt::format("UPDATE items SET order_id={} WHERE qty={}", pick(300), pick(9));
    case 5:
      return fmt::format("INSERT OR REPLACE INTO pairs VALUES({}, {}, {})", value(), value(),
                         value());
    case 6:
      return fmt::format("DELETE FROM pairs WHERE rowid%5={}", pick(5));
    case 7:
      return fmt::format("UPDATE OR IGNORE pairs SET a={} WHERE rowid%9={}", value(), pick(9));
    case 8:
      return fmt::format("INSERT INTO unpublished VALUES({})", value());
    case 9:
      return fmt::format("INSERT OR REPLACE INTO pairs VALUES({}, {}, printf('%09000d', {}))",
                         value(), value(), id);
    case 10:  // within overflow pages
    case 11:
      return fmt::format(
          "UPDATE pairs SET c = substr(c, 1, 8999) || '{}' WHERE typeof(c) = 'text' AND length(c) "
          "= "
          "9000",
          pick(10));
    default:
      return fmt::format(
          "SAVEPOINT s; UPDATE orders SET customer='phantom'; DELETE FROM items; ROLLBACK TO s; "
          "RELEASE s; INSERT OR REPLACE INTO orders VALUES({}, 1, 'x', 'y', 2)",
          id);
  }
}

std::string PublicationOracleTest::statement() {
  const int id = pick(300);
  switch (pick(20)) {
    case 0:
    case 1:
    case 2:
      return fmt::format(
          "INSERT OR REPLACE INTO orders(id, tenant, customer, secret, total) VALUES({}, {}, {}, "
          "{}, {})",
          id, pick(4), value(), value(), pick(100));
    case 3:
      return fmt::format("UPDATE orders SET tenant={} WHERE id BETWEEN {} AND {}", pick(5), id,
                         id + pick(20));
    case 4:
      return fmt::format("UPDATE orders SET secret={} WHERE id%7={}", value(), pick(7));
    case 5:
      return fmt::format("DELETE FROM orders WHERE id BETWEEN {} AND {}", id, id + pick(40));
    case 6:
    case 7:
      return fmt::format(
          "INSERT INTO items VALUES('i{}', {}, {}) ON CONFLICT DO UPDATE SET qty=qty+1", pick(200),
          id, pick(9));
    case 8:
      return fmt::format("DELETE FROM items WHERE qty={}", pick(9));
    case 9:
      return fmt::format("UPDATE OR IGNORE items SET sku=upper(sku) WHERE qty={}", pick(9));
    case 10:
      return pick(20) == 0 ? "DELETE FROM orders" : "UPDATE orders SET id=id+1000 WHERE id=5";
    case 11:
      return "UPDATE orders SET customer=customer";
    case 12:
      return fmt::format(
          "INSERT OR REPLACE INTO orders WITH RECURSIVE c(x) AS (SELECT {0} UNION ALL SELECT x+1 "
          "FROM c WHERE x < {1}) SELECT x, x%4, 'c'||x, randomblob(x%50), x%11 FROM c",
          id, id + pick(60));
    default:
      return other_statement(id);
  }
}

std::vector<std::string> PublicationOracleTest::transaction(int step) {
  if (step % 40 == 20) return {"ALTER TABLE orders ADD COLUMN more" + std::to_string(step)};
  if (step % 150 == 75) return {"VACUUM"};
  if (step % 40 == 5) return {fmt::format("CREATE TABLE other{} AS SELECT * FROM items", step)};
  if (step % 40 == 15) return {fmt::format("DROP TABLE other{}", step - 10)};
  if (step % 40 == 30) return {fmt::format("ALTER TABLE orders DROP COLUMN more{}", step - 10)};
  std::vector<std::string> statements = {"BEGIN"};
  for (int i = pick(4); i >= 0; --i) {
    std::string text = statement();
    for (std::size_t end; (end = text.find("; ")) != std::string::npos; text.erase(0, end + 2))
      statements.push_back(text.substr(0, end));
    statements.push_back(text);
  }
  statements.emplace_back(pick(12) == 0 ? "ROLLBACK" : "COMMIT");
  return statements;
}

std::vector<std::string> PublicationOracleTest::sorted(const DatabaseName& database,
                                                       const Published& item,
                                                       const std::string& from) {
  std::vector<std::string> columns;
  for (const std::string& column : item.columns) columns.push_back("quote(" + column + ")");
  auto found = rows(database, fmt::format("SELECT {} FROM {}", fmt::join(columns, ","), from));
  std::ranges::sort(found);
  return found;
}

void PublicationOracleTest::check(const Watched& watched, int step) {
  const DatabaseName instance = open_instance(watched.publication, watched.given);
  for (const Published& item : watched.items) {
    ASSERT_EQ(sorted(instance, item, item.name), sorted(name("shop"), item, "(" + item.truth + ")"))
        << "seed " << GetParam() << ", step " << step << ": " << item.name;
  }
  ASSERT_EQ(rows(instance, "PRAGMA integrity_check"), std::vector<std::string>{"ok"});
}

bool PublicationOracleTest::is_right(const Watched& watched) {
  const DatabaseName instance = open_instance(watched.publication, watched.given);
  return std::ranges::all_of(watched.items, [&](const Published& item) {
    return sorted(instance, item, item.name) == sorted(name("shop"), item, "(" + item.truth + ")");
  });
}

bool PublicationOracleTest::work(int steps, bool stops) {
  EXPECT_EQ(refusal(kMine), "none");
  EXPECT_EQ(refusal("CREATE PUBLICATION all-of-it AS TABLE pairs(*), TABLE items(sku, qty) WHERE "
                    "qty > 2 OR qty IS NULL, TABLE orders(id, tenant)"),
            "none");
  std::vector<Watched> watched = {{"all-of-it", {}, all_of_it()}};
  for (const char* tenant : {"0", "1", "2", "3"})
    watched.push_back({"mine", {{"tenant", tenant}}, mine(tenant)});
  open_instance("all-of-it");
  for (int step = 0; step < steps; ++step) {
    run("shop", transaction(step));
    if (step % 5 == 4 && step > 10) continue;  // several at once
    settle();
    for (const Watched& each : watched) {
      if (step < 10 && pick(2) == 0) continue;  // some begin later
      if (stops && !is_right(each)) return true;
      if (!stops) check(each, step);
      if (HasFatalFailure()) return true;
    }
  }
  return false;
}

TEST_P(PublicationOracleTest, InstancesAreWhatTheirDefinitionsSay) {
  make_source();
  const int steps = 10 * number_from("OFFPRINT_TEST_ROUNDS", 15);
  ASSERT_FALSE(work(steps, false));
  auto status = publications_->status(name("shop"));
  EXPECT_GT(status->rows, static_cast<unsigned>(steps));
  EXPECT_LT(status->refreshes, static_cast<unsigned>(steps) / 10 + 15)
      << "most steps are told from the pages";
}

// Mistakes that were put in: the oracle sees each of them.
class SeededBugTest : public PublicationOracleTest {
 protected:
  void SetUp() override {
    PublicationOracleTest::SetUp();
    static constexpr SeededBug kBugs[] = {SeededBug::kFilterMoves, SeededBug::kOverflowPages,
                                          SeededBug::kFreedPages};
    seeded_bug = kBugs[GetParam() - 1];
  }
  void TearDown() override {
    seeded_bug = SeededBug::kNone;
    PublicationOracleTest::TearDown();
  }
};

TEST_P(SeededBugTest, IsSeen) {
  make_source();
  EXPECT_TRUE(work(400, true));
}

INSTANTIATE_TEST_SUITE_P(Bugs, SeededBugTest, ::testing::Range(1, 4));

INSTANTIATE_TEST_SUITE_P(Seeds, PublicationOracleTest, ::testing::Range(1, 5));

}  // namespace
}  // namespace offprint::publication
