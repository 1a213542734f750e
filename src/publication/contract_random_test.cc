// Random changes of random schemas: what the checker says against what SQLite does with the
// queries.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/contract_check.h"
#include "publication/sql_tokens.h"
#include "sqlite/connection.h"

namespace offprint::publication::testing {
namespace {

constexpr int kRounds = 400;

struct RandomColumn {
  std::string name, definition;
};
struct RandomTable {
  std::string name;
  std::vector<RandomColumn> columns;
  std::string options;
};
struct RandomSchema {
  std::vector<RandomTable> tables;
  std::vector<std::string> others;  // indexes, views, triggers

  std::string sql() const {
    std::string text;
    for (const RandomTable& table : tables) {
      std::vector<std::string> parts;
      for (const RandomColumn& column : table.columns)
        parts.push_back(column.name + " " + column.definition);
      text += fmt::format("CREATE TABLE {}({}){};\n", table.name, fmt::join(parts, ", "),
                          table.options);
    }
    for (const std::string& other : others) text += other + ";\n";
    return text;
  }
};

// What SQLite alone says of a query.
struct Compiled {
  bool ok = false;
  std::vector<std::string> names;  // folded
};

class Maker {
 public:
  explicit Maker(unsigned seed) : random_(seed) {}

  int below(std::size_t limit) { return static_cast<int>(random_() % limit); }
  template <class List>
  const auto& pick(const List& list) {
    return list[static_cast<std::size_t>(below(std::size(list)))];
  }

  RandomSchema schema() {
    RandomSchema made;
    for (const char* name : {"t", "u", "w"}) {
      RandomTable table{name, {{"id", "INTEGER PRIMARY KEY"}}, ""};
      for (const char* column : {"a", "b", "c", "d"}) {
        if (below(3) > 0) table.columns.push_back({column, definition()});
      }
      if (below(5) == 0) table.columns.push_back({"k", "INT UNIQUE"});
      made.tables.push_back(std::move(table));
    }
    const RandomTable& table = pick(made.tables);
    const std::string& column = pick(table.columns).name;
    made.others.push_back(fmt::format("CREATE INDEX i ON {}({})", table.name, column));
    made.others.push_back(
        below(3) == 0
            ? fmt::format("CREATE VIEW v AS SELECT * FROM {}", table.name)
            : fmt::format("CREATE VIEW v(x, y) AS SELECT id, {} FROM {}", column, table.name));
    return made;
  }

  void change(RandomSchema& schema) {
    RandomTable& table = schema.tables[static_cast<std::size_t>(below(schema.tables.size()))];
    const auto place = static_cast<std::size_t>(below(table.columns.size()));
    switch (below(11)) {
      case 0:
        if (table.columns.size() > 1)
          table.columns.erase(table.columns.begin() + static_cast<std::ptrdiff_t>(place));
        return;
      case 1:
      case 2:
        add_column(table, pick(kNames));
        return;
      case 3:
        rename(table.columns[place].name, table);
        return;
      case 4:
        table.columns[place].definition = definition();
        return;
      case 5:
        std::swap(table.columns[place], table.columns.back());
        return;
      case 6:
        schema.others.push_back(fmt::format("CREATE VIEW {0}(id) AS SELECT 1", pick(kViews)));
        return;
      case 7:
        if (schema.others.size() > 0)
          schema.others.erase(schema.others.begin() + below(schema.others.size()));
        return;
      case 8:
        rename_table(schema, table);
        return;
      case 9:
        table.options = table.options.empty() ? " WITHOUT ROWID" : "";
        return;
      default:
        schema.others.push_back(fmt::format("CREATE UNIQUE INDEX x{} ON {}({})", below(1000),
                                            table.name, table.columns[place].name));
    }
  }

  // Over the names that the schemas may have, whether or not they do.
  std::string query() {
    const std::string& t = pick(kTables);
    const std::string& u = pick(kTables);
    const std::string& a = pick(kNames);
    const std::string& b = pick(kNames);
    switch (below(11)) {
      case 0:
        return fmt::format("SELECT * FROM {}", t);
      case 1:
        return fmt::format("SELECT {}, {} AS z FROM {} WHERE {} > 1", a, b, t, a);
      case 2:
        return fmt::format("SELECT {} FROM {} x JOIN {} y ON x.id = y.id", a, t, u);
      case 3:
        return fmt::format("SELECT id, {} FROM {} NATURAL JOIN {}", a, t, u);
      case 4:
        return fmt::format("SELECT x.{0} FROM {1} x JOIN {2} y USING({3})", a, t, u, b);
      case 5:
        return fmt::format("INSERT INTO {} VALUES(?, ?, ?)", t);
      case 6:
        return fmt::format("INSERT INTO {}(id, {}) VALUES(1, 2) ON CONFLICT({}) DO NOTHING", t, a,
                           pick(kNames));
      case 7:
        return fmt::format("SELECT rowid FROM {}", t);
      case 8:
        return "SELECT * FROM v";
      case 9:
        return fmt::format("SELECT x FROM v WHERE y IN (SELECT {} FROM {})", a, t);
      default:
        return fmt::format("UPDATE {} SET {} = 1 RETURNING *", t, a);
    }
  }

  // That names all it reads, and nothing that another column could be taken for.
  std::string plain_query(const RandomSchema& schema) {
    const RandomTable& t = pick(schema.tables);
    const RandomTable& u = pick(schema.tables);
    const std::string& a = pick(t.columns).name;
    return fmt::format("SELECT x.{0} AS {0}, y.id AS n FROM {1} x, {2} y WHERE x.id = y.{3}", a,
                       t.name, u.name, pick(u.columns).name);
  }

 private:
  static inline const std::vector<std::string> kNames = {"a", "b", "c", "d", "e", "id", "k"};
  static inline const std::vector<std::string> kTables = {"t", "u", "w"};
  static inline const std::vector<std::string> kViews = {"v2", "v3"};

  std::string definition() {
    static const std::vector<std::string> kDefinitions = {
        "INT",  "TEXT",         "TEXT COLLATE NOCASE", "REAL", "BLOB", "INT NOT NULL DEFAULT 1",
        "DATE", "INT CHECK (1)"};
    return pick(kDefinitions);
  }
  void add_column(RandomTable& table, const std::string& name) {
    if (std::ranges::find(table.columns, name, &RandomColumn::name) == table.columns.end())
      table.columns.push_back({name, definition()});
  }
  void rename(const std::string& column, RandomTable& table) {
    auto found = std::ranges::find(table.columns, column, &RandomColumn::name);
    if (std::ranges::find(table.columns, "e", &RandomColumn::name) != table.columns.end()) return;
    std::string old = std::exchange(found->name, "e");
    if (below(2) == 0) table.columns.push_back({std::move(old), "INT AS (e)"});
  }
  void rename_table(RandomSchema& schema, RandomTable& table) {
    if (table.name == "renamed" ||
        std::ranges::find(schema.tables, "renamed", &RandomTable::name) != schema.tables.end())
      return;
    std::vector<std::string> names;
    for (const RandomColumn& column : table.columns) names.push_back(column.name);
    if (below(2) == 0)
      schema.others.push_back(fmt::format("CREATE VIEW {0}({1}) AS SELECT {1} FROM renamed",
                                          table.name, fmt::join(names, ", ")));
    table.name = "renamed";
  }

  std::mt19937 random_;
};

std::optional<sqlite::Connection> database_of(const std::string& sql) {
  sqlite::Connection::Options options;
  options.create = true;
  auto db = sqlite::Connection::open(":memory:", options);
  if (!db || !db->execute(sql.c_str())) return std::nullopt;
  return *std::move(db);
}

Compiled compile(sqlite::Connection& db, const std::string& sql) {
  Compiled compiled;
  auto statement = db.prepare(sql);
  if (!statement) return compiled;
  compiled.ok = true;
  for (int i = 0; i < statement->column_count(); ++i)
    compiled.names.push_back(folded(sqlite3_column_name(statement->handle(), i)));
  return compiled;
}

// The affinities of a query's result, as SQLite gives them to a table made of it.
std::string affinities(sqlite::Connection& db, const std::string& sql) {
  EXPECT_TRUE(db.execute(("CREATE TEMP TABLE result AS " + sql).c_str())) << sql;
  auto types = db.query_text("SELECT group_concat(type) FROM pragma_table_info('result')");
  EXPECT_TRUE(db.execute("DROP TABLE temp.result"));
  return types ? *types : types.error().message();
}

bool goes_on(sqlite::Connection& before, sqlite::Connection& after, const std::string& sql) {
  const Compiled was = compile(before, sql), is = compile(after, sql);
  return is.ok && is.names == was.names;
}

class RandomChanges : public ::testing::Test {
 protected:
  // The old and the new schema; false when SQLite refuses one of them.
  bool make(unsigned seed) {
    maker_.emplace(seed);
    before_ = maker_->schema();
    after_ = before_;
    for (int i = maker_->below(3); i >= 0; --i) maker_->change(after_);
    old_db_ = database_of(before_.sql());
    new_db_ = database_of(after_.sql());
    return old_db_ && new_db_;
  }

  CheckReport check(const Contract& contract) {
    const auto before = script_of_text("old.sql", before_.sql());
    const auto after = script_of_text("new.sql", after_.sql());
    CheckOptions options;
    options.today = "2026-11-22";
    auto report = check_contracts(*before, *after, {contract}, options);
    EXPECT_TRUE(report) << report.error().message();
    return report ? *std::move(report) : CheckReport{};
  }

  static int rounds() {
    const char* asked = std::getenv("OFFPRINT_TEST_ROUNDS");
    return asked == nullptr ? kRounds : std::atoi(asked);
  }

  std::optional<Maker> maker_;
  RandomSchema before_, after_;
  std::optional<sqlite::Connection> old_db_, new_db_;
};

bool names_query(const CheckReport& report, const std::string& name) {
  return std::ranges::any_of(report.findings, [&](const Finding& finding) {
    return finding.severity == Severity::kError && finding.message.starts_with(name + " ");
  });
}

TEST_F(RandomChanges, NoErrorMeansThatRegisteredQueriesGoOn) {
  int clean = 0, broken = 0, goes_on_beside_broken = 0;
  for (int round = 0; round < rounds(); ++round) {
    if (!make(static_cast<unsigned>(round))) continue;
    Contract contract;
    contract.name = "k";
    for (int i = 0; i < 40; ++i) {
      std::string sql = maker_->query();
      if (compile(*old_db_, sql).ok)
        contract.queries.push_back({fmt::format("query {}", i), std::move(sql)});
    }
    const CheckReport report = check(contract);
    clean += report.errors == 0 ? 1 : 0;
    for (const ContractQuery& query : contract.queries) {
      const bool is_told = names_query(report, query.name);
      if (goes_on(*old_db_, *new_db_, query.sql)) {
        goes_on_beside_broken += report.errors > 0 && !is_told ? 1 : 0;
        continue;
      }
      ++broken;
      ASSERT_TRUE(is_told) << "round " << round << "\n"
                           << before_.sql() << "->\n"
                           << after_.sql() << query.sql;
    }
  }
  // All that matters has happened.
  if (rounds() < 100) return;
  EXPECT_GT(clean, rounds() / 50);
  EXPECT_GT(broken, rounds() / 10);
  EXPECT_GT(goes_on_beside_broken, rounds() / 10);
}

TEST_F(RandomChanges, NoErrorMeansThatNamedColumnsAreThere) {
  int clean_changes = 0, broken = 0;
  for (int round = 0; round < rounds(); ++round) {
    if (!make(static_cast<unsigned>(100'000 + round))) continue;
    Contract contract;
    contract.name = "k";
    for (const RandomTable& table : before_.tables) {
      auto& columns = contract.reads[table.name].emplace();
      for (const RandomColumn& column : table.columns) columns.insert(column.name);
    }
    const CheckReport report = check(contract);
    clean_changes += report.errors == 0 && before_.sql() != after_.sql() ? 1 : 0;
    for (int i = 0; i < 40; ++i) {
      const std::string sql = maker_->plain_query(before_);
      if (goes_on(*old_db_, *new_db_, sql) &&
          affinities(*old_db_, sql) == affinities(*new_db_, sql))
        continue;
      ++broken;
      ASSERT_GT(report.errors, 0) << "round " << round << "\n"
                                  << before_.sql() << "->\n"
                                  << after_.sql() << sql;
    }
  }
  if (rounds() < 100) return;
  EXPECT_GT(clean_changes, rounds() / 10);
  EXPECT_GT(broken, rounds() / 10);
}

TEST_F(RandomChanges, NoChangeHasNoErrors) {
  for (int round = 0; round < rounds(); ++round) {
    if (!make(static_cast<unsigned>(200'000 + round))) continue;
    after_ = before_;
    Contract contract;
    contract.name = "k";
    for (int i = 0; i < 20; ++i) {
      std::string sql = maker_->query();
      if (compile(*old_db_, sql).ok)
        contract.queries.push_back({fmt::format("query {}", i), std::move(sql)});
    }
    const CheckReport report = check(contract);
    ASSERT_EQ(report.findings.size(), 0) << before_.sql() << report.findings.front().message;
  }
}

}  // namespace
}  // namespace offprint::publication::testing
