// The changes that a feed tells of, against the database itself at each transaction.
#include "feed/change_reader.h"

#include <map>
#include <random>
#include <set>

#include <gtest/gtest.h>

#include "database/testing.h"
#include "feed/changeset.h"

namespace offprint::feed {
namespace {

using database::DatabaseName;

std::string text_of(const sqlite::Value& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return fmt::format("{}", *integer);
  if (const auto* real = std::get_if<double>(&value)) return fmt::format("r{}", *real);
  if (const auto* text = std::get_if<std::string>(&value)) return "'" + *text + "'";
  if (const auto* blob = std::get_if<Bytes>(&value)) return "x" + to_hex(*blob);
  return "NULL";
}

std::string text_of(const std::vector<std::string>& columns, const Row& row) {
  std::string text;
  for (std::size_t i = 0; i < row.size(); ++i) text += columns[i] + "=" + text_of(row[i]) + " ";
  return text;
}

using Tables = std::map<std::string, std::multiset<std::string>>;

// What a database has, as a model has it.
Tables tables_of(sqlite::Connection& connection, bool with_key_only = false) {
  Tables tables;
  auto names = connection.prepare(
      with_key_only
          ? "SELECT name FROM sqlite_schema s WHERE type='table' AND name NOT LIKE 'sqlite_%' "
            "AND EXISTS (SELECT 1 FROM pragma_table_info(s.name) WHERE pk>0)"
          : "SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite_%'");
  while (*names->step()) {
    const std::string table(names->column_text(0));
    auto rows = connection.prepare("SELECT * FROM \"" + table + "\"");
    while (*rows->step()) {
      Row row;
      std::vector<std::string> columns;
      for (int i = 0; i < rows->column_count(); ++i) {
        row.push_back(publication::value_of(*rows, i));
        columns.emplace_back(sqlite3_column_name(rows->handle(), i));
      }
      tables[table].insert(text_of(columns, row));
    }
  }
  return tables;
}

// What a consumer has who applies line after line: rows by table, as texts.
class Model {
 public:
  void apply(const Transaction& transaction) {
    for (const TableChanges& changes : transaction.tables) {
      for (const RowChange& row : changes.rows) {
        if (!row.before.empty()) {
          auto& rows = tables_[changes.before->name];
          auto found = rows.find(text_of(changes.before->columns, row.before));
          ASSERT_NE(found, rows.end()) << "it was not there: " << changes.before->name << " "
                                       << text_of(changes.before->columns, row.before);
          rows.erase(found);
        }
        if (!row.after.empty())
          tables_[changes.after->name].insert(text_of(changes.after->columns, row.after));
      }
    }
    std::erase_if(tables_, [](const auto& table) { return table.second.empty(); });
  }
  const Tables& tables() const { return tables_; }

 private:
  Tables tables_;
};

// A plain SQLite database to which changesets are applied.
class Mirror {
 public:
  Mirror() {
    sqlite::Connection::Options options;
    options.create = true;
    connection_.emplace(*sqlite::Connection::open(":memory:", options));
  }
  void become(sqlite::Connection& other) {
    sqlite3_backup* backup =
        sqlite3_backup_init(connection_->handle(), "main", other.handle(), "main");
    ASSERT_NE(backup, nullptr);
    ASSERT_EQ(sqlite3_backup_step(backup, -1), SQLITE_DONE);
    ASSERT_EQ(sqlite3_backup_finish(backup), SQLITE_OK);
  }
  void apply(Bytes changeset) {
    auto conflict = [](void*, int, sqlite3_changeset_iter*) { return SQLITE_CHANGESET_ABORT; };
    ASSERT_EQ(sqlite3changeset_apply(connection_->handle(), static_cast<int>(changeset.size()),
                                     changeset.data(), nullptr, conflict, nullptr),
              SQLITE_OK);
  }
  Tables tables() { return tables_of(*connection_, true); }

 private:
  std::optional<sqlite::Connection> connection_;
};

class ChangeReaderTest : public database::testing::StoreTest {
 protected:
  void SetUp() override {
    StoreTest::SetUp();
    create("a");
  }
  DatabaseName a() const { return name("a"); }
  Bookmark now() { return store_->position(a())->bookmark(); }
  Bookmark exec(std::vector<std::string> statements) {
    auto answers = run("a", std::move(statements));
    EXPECT_FALSE(answers.outcome.error) << answers.outcome.error->message();
    for (const auto& each : answers.statements) EXPECT_EQ(each.code, 0) << each.message;
    return answers.outcome.bookmark;
  }
  // As one transaction; what fails in it is left out.
  Bookmark try_all(std::vector<std::string> statements) {
    statements.insert(statements.begin(), "BEGIN");
    statements.push_back("COMMIT");
    return run("a", std::move(statements)).outcome.bookmark;
  }
  std::unique_ptr<ChangeReader> reader(const Bookmark& since, std::size_t bytes_max = 16 << 20) {
    ChangeReader::Options options;
    options.transaction_bytes_max = bytes_max;
    auto made = ChangeReader::open(*store_, a(), since, options);
    EXPECT_TRUE(made) << made.error().message();
    if (!made) return nullptr;
    auto wanted = (*made)->want_rows(true);
    EXPECT_TRUE(wanted) << wanted.error().message();
    return *std::move(made);
  }
  std::shared_ptr<const Transaction> next(ChangeReader& from) {
    auto read = from.next();
    EXPECT_TRUE(read) << read.error().message();
    return read ? *read : nullptr;
  }
  // A connection to the database as it was.
  void at(const Bookmark& bookmark, const std::function<void(sqlite::Connection&)>& work) {
    auto state = store_->snapshot_at(a(), bookmark);
    ASSERT_TRUE(state) << state.error().message();
    sqlite::PageDatabase::Content content;
    content.page_size = (*state)->page_size();
    content.page_count = (*state)->page_count();
    content.read = [&](PageNo page) { return (*state)->page(page); };
    sqlite::PageDatabase pages(std::move(content));
    sqlite::Connection::Options options;
    options.read_only = true;
    options.vfs = pages.vfs();
    auto connection = sqlite::Connection::open(pages.path(), options);
    ASSERT_TRUE(connection);
    work(*connection);
  }
  // The tables at a position, as a model has them.
  Tables tables_at(const Bookmark& bookmark) {
    Tables tables;
    at(bookmark, [&](sqlite::Connection& connection) { tables = tables_of(connection); });
    return tables;
  }
};

TEST_F(ChangeReaderTest, TellsOfEachTransactionOnce) {
  const Bookmark start = now();
  exec({"CREATE TABLE t(id INTEGER PRIMARY KEY, v)"});
  exec({"INSERT INTO t VALUES (1,'a'),(2,'b')"});
  exec({"BEGIN", "UPDATE t SET v='c' WHERE id=1", "DELETE FROM t WHERE id=2",
        "INSERT INTO t VALUES (3,x'00ff')", "INSERT INTO t VALUES (4,1)",
        "DELETE FROM t WHERE id=4", "COMMIT"});
  auto from = reader(start);
  auto first = next(*from);
  ASSERT_TRUE(first);
  EXPECT_TRUE(first->schema_changed);
  EXPECT_EQ(first->previous, start);
  auto second = next(*from);
  EXPECT_FALSE(second->schema_changed);
  EXPECT_EQ(second->previous, first->at);
  ASSERT_EQ(second->tables.size(), 1u);
  EXPECT_EQ(second->tables[0].rows.size(), 2u);
  auto third = next(*from);
  ASSERT_EQ(third->tables.size(), 1u);
  const auto& rows = third->tables[0].rows;
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].op, RowChange::Op::kDelete);
  EXPECT_EQ(rows[1].op, RowChange::Op::kUpdate);
  EXPECT_EQ(text_of(rows[1].before[1]), "'a'");
  EXPECT_EQ(text_of(rows[1].after[1]), "'c'");
  EXPECT_EQ(rows[2].op, RowChange::Op::kInsert);
  EXPECT_EQ(third->at, now());
  EXPECT_FALSE(next(*from));
}

TEST_F(ChangeReaderTest, AStateThatIsNotOursIsRefused) {
  exec({"CREATE TABLE t(a)"});
  Bookmark other = now();
  other.lineage = Lineage::random();
  auto made = ChangeReader::open(*store_, a(), other, {});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code(), Code::kBehind);
}

TEST_F(ChangeReaderTest, WhatIsTooLargeIsSaidAndTheNextIsToldAgain) {
  exec({"CREATE TABLE t(id INTEGER PRIMARY KEY, v)"});
  auto from = reader(now(), 100'000);
  exec(
      {"WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i+1 FROM n WHERE i<1500) "
       "INSERT INTO t SELECT i, randomblob(1000) FROM n"});
  exec({"UPDATE t SET v=1 WHERE id=1200"});
  std::shared_ptr<const Transaction> last;
  bool was_too_large = false;
  while (auto read = next(*from)) {
    was_too_large = was_too_large || read->is_too_large;
    last = read;
  }
  EXPECT_TRUE(was_too_large);
  ASSERT_TRUE(last);
  ASSERT_EQ(last->tables.size(), 1u);
  ASSERT_EQ(last->tables[0].rows.size(), 1u);
  EXPECT_EQ(last->at, now());
}

// Random schemas and transactions.
class ChangeModelTest : public ChangeReaderTest, public ::testing::WithParamInterface<unsigned> {
 protected:
  std::string value() {
    switch (random_() % 6) {
      case 0:
        return "NULL";
      case 1:
        return fmt::format("{}.5", random_() % 100);
      case 2:
        return fmt::format("'{}'",
                           std::string(random_() % 40, static_cast<char>('a' + random_() % 26)));
      case 3:
        return fmt::format("randomblob({})", random_() % 3000 + 1);
      default:
        return fmt::format("{}", random_() % 50);
    }
  }
  std::string key() { return fmt::format("{}", random_() % 60); }
  std::string table() { return fmt::format("t{}", random_() % 5); }
  std::string statement() {
    const std::string t = table();
    switch (random_() % 24) {
      case 0:
        return fmt::format("DROP TABLE {}", t);
      case 1:
        return fmt::format("CREATE TABLE {}(k INTEGER PRIMARY KEY, v, w)", t);
      case 2:
        return fmt::format("CREATE TABLE {}(k TEXT PRIMARY KEY, v, w)", t);
      case 3:
        return fmt::format("CREATE TABLE {}(v, k INT, w, PRIMARY KEY(k, w)) WITHOUT ROWID", t);
      case 4:
        return fmt::format("CREATE TABLE {}(k REAL, v, w, g AS (v||'!'))", t);
      case 5:
        return fmt::format("ALTER TABLE {} ADD COLUMN x{} DEFAULT 7", t, random_() % 3);
      case 6:
        return fmt::format("CREATE INDEX i{} ON {}(v)", random_() % 5, t);
      case 7:
        return fmt::format("ALTER TABLE {} RENAME TO {}", t, table());
      case 8:
        return fmt::format("DELETE FROM {}", t);
      case 9:
      case 10:
        return fmt::format("DELETE FROM {} WHERE k={}", t, key());
      case 11:
      case 12:
        return fmt::format("UPDATE {} SET v={} WHERE k={}", t, value(), key());
      case 13:
        return fmt::format("UPDATE OR IGNORE {} SET k=k+{} WHERE k<20", t, random_() % 5);
      case 14:
        return fmt::format(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<80) INSERT OR "
            "IGNORE INTO {}(k,v,w) SELECT i, randomblob(i*7), i FROM n",
            t);
      default:
        return fmt::format("INSERT OR REPLACE INTO {}(k,v,w) VALUES ({},{},{})", t, key(), value(),
                           random_() % 3);
    }
  }
  std::mt19937 random_{GetParam()};
};

TEST_P(ChangeModelTest, LinesMakeTheSourcesContentAtEachTransaction) {
  auto from = reader(now());
  Model model;
  Mirror mirror;
  for (int round = 0; round < 60; ++round) {
    const int transactions = static_cast<int>(random_() % 4) + 1;
    for (int i = 0; i < transactions; ++i) {
      if (random_() % 40 == 0) {
        run("a", {"VACUUM"});
        continue;
      }
      std::vector<std::string> statements;
      for (std::size_t n = random_() % 6 + 1; n > 0; --n) statements.push_back(statement());
      try_all(std::move(statements));
    }
    if (random_() % 10 == 0) from->walk().rest();
    if (random_() % 15 == 0) from = reader(from->position());
    for (Bookmark last = from->position();;) {
      auto read = next(*from);
      if (!read) break;
      ASSERT_EQ(read->previous, last);
      last = read->at;
      model.apply(*read);
      ASSERT_EQ(model.tables(), tables_at(last)) << "round " << round;
      if (!read->schema_changed) mirror.apply(changeset_of(*read));
      at(last, [&](sqlite::Connection& source) {
        if (read->schema_changed) mirror.become(source);
        ASSERT_EQ(mirror.tables(), tables_of(source, true)) << "round " << round;
      });
      if (HasFatalFailure()) return;
    }
    ASSERT_EQ(from->position(), now());
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, ChangeModelTest, ::testing::Range(1u, 9u));

}  // namespace
}  // namespace offprint::feed
