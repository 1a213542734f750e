// Whatever requests share a transaction, each gets what it alone, in the same order, would have got
// from stock SQLite: the same codes, messages, rows and counts of every statement, and the same
// contents after every batch.
#include <cstdlib>
#include <random>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/fault_file_system.h"
#include "database/fault_vfs_testing.h"
#include "database/testing.h"

namespace offprint::database::testing {
namespace {

using Dice = std::mt19937;

int pick(Dice& dice, int below) { return static_cast<int>(dice() % static_cast<unsigned>(below)); }

// What a client sends in one go: statements one by one, going on after failures, or one text that
// stops at the first failure.
struct Script {
  std::vector<std::string> statements;
  bool is_text = false;

  std::string text() const { return fmt::format("{}", fmt::join(statements, "; ")); }
};

constexpr const char* kSchema[] = {
    "CREATE TABLE u(k INTEGER UNIQUE, v)",
    "CREATE TABLE p(id INTEGER PRIMARY KEY)",
    "CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)",
    "CREATE TABLE ci(p REFERENCES p(id))",
    "CREATE TABLE cc(p REFERENCES p(id) ON DELETE CASCADE ON UPDATE SET NULL)",
    "CREATE TABLE r(k INTEGER PRIMARY KEY ON CONFLICT ROLLBACK, v)",
    "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
    "CREATE TABLE w(k TEXT PRIMARY KEY, n INT CHECK(n < 60), g INT AS (n * 2) STORED) STRICT, "
    "WITHOUT ROWID",
    "CREATE TABLE seen(what, changed, id)",
    "CREATE TABLE tr(x)",
    "CREATE VIEW uv AS SELECT k, v FROM u",
    "CREATE TRIGGER t1 BEFORE INSERT ON tr WHEN new.x=1 BEGIN"
    " INSERT INTO u VALUES(100 + (SELECT count(*) FROM u), 0); SELECT RAISE(ROLLBACK, 'r'); END",
    "CREATE TRIGGER t2 AFTER INSERT ON tr WHEN new.x=2 BEGIN SELECT RAISE(FAIL, 'f'); END",
    "CREATE TRIGGER t3 AFTER INSERT ON tr WHEN new.x=3 BEGIN"
    " DELETE FROM tr; INSERT OR IGNORE INTO u VALUES(99, 1); END",
    "CREATE TRIGGER t4 BEFORE INSERT ON tr WHEN new.x=4 BEGIN"
    " INSERT INTO seen VALUES('ignored', changes(), last_insert_rowid());"
    " SELECT RAISE(IGNORE); END",
    "CREATE TRIGGER t5 AFTER INSERT ON tr WHEN new.x=5 BEGIN"
    " INSERT INTO seen VALUES('abort', 0, 0); SELECT RAISE(ABORT, 'a'); END",
    "CREATE TRIGGER t6 AFTER UPDATE ON u WHEN new.v=7 BEGIN"
    " INSERT INTO seen VALUES('seven', changes(), last_insert_rowid()); END",
    "CREATE TRIGGER t7 INSTEAD OF INSERT ON uv BEGIN"
    " INSERT OR REPLACE INTO u VALUES(new.k, new.v);"
    " INSERT INTO seen VALUES('view', changes(), last_insert_rowid()); END",
};

// A statement that, alone or in a transaction, never ends more than itself.
std::string mild_statement(Dice& dice) {
  int k = pick(dice, 12);
  int v = pick(dice, 40);
  switch (pick(dice, 25)) {
    case 0:
      return fmt::format("INSERT INTO u VALUES({}, {})", v, k);
    case 1:
      return fmt::format("INSERT OR FAIL INTO u VALUES({},1),({},2),({},3)", v, k, pick(dice, 40));
    case 2:
      return fmt::format("DELETE FROM u WHERE k % 7 = {}", pick(dice, 7));
    case 3:
      return fmt::format("INSERT OR IGNORE INTO p VALUES({})", k);
    case 4:
      return fmt::format("INSERT INTO ci VALUES({})", k);
    case 5:
      return fmt::format("DELETE FROM c WHERE p = {}", k);
    case 6:
      return fmt::format("INSERT INTO tr VALUES({})", 2 + pick(dice, 6));
    case 7:
      return fmt::format("CREATE TABLE x{}(a, b DEFAULT {})", pick(dice, 3), k);
    case 8:
      return fmt::format("DROP TABLE x{}", pick(dice, 3));
    case 9:
      return "SELECT * FROM nosuch";
    case 10:
      return fmt::format("UPDATE u SET k = k + 1, v = {} WHERE k > {}", 6 + pick(dice, 2), v);
    case 11:
      return fmt::format("INSERT INTO u VALUES({}, NULL) RETURNING k, rowid", v);
    case 12:
      return fmt::format("INSERT OR REPLACE INTO u VALUES({}, {})", v, k);
    case 13:
      return "SELECT changes(), last_insert_rowid(), total_changes()";
    case 14:
      return fmt::format("INSERT INTO a(v) VALUES({}),(last_insert_rowid()),(changes())", k);
    case 15:
      return fmt::format(
          "INSERT INTO w(k, n) VALUES('{}', {}) ON CONFLICT(k) DO UPDATE SET n = n + excluded.n "
          "RETURNING n, g",
          k, 2 * v);
    case 16:
      return fmt::format("INSERT INTO w(k, n) VALUES('{}', 'text')", k);
    case 17:
      return fmt::format("SELECT k, v FROM u WHERE k >= {} ORDER BY k LIMIT 5", v);
    case 18:
      return fmt::format("PRAGMA user_version={}", k);
    case 19:
      return "PRAGMA user_version";
    case 20:
      return fmt::format("INSERT INTO uv VALUES({}, 7)", v);
    case 21:
      return fmt::format("ALTER TABLE x{} ADD COLUMN c{} DEFAULT {}", pick(dice, 3), v, k);
    case 22:
      return fmt::format("INSERT INTO x{} DEFAULT VALUES", pick(dice, 3));
    case 23:
      return fmt::format("DELETE FROM a WHERE id % 3 = {}", pick(dice, 3));
    default:
      return fmt::format("INSERT INTO tr SELECT x + 1 FROM tr WHERE x < {}", pick(dice, 7));
  }
}

// Any statement.
std::string statement(Dice& dice) {
  int k = pick(dice, 12);
  switch (pick(dice, 26)) {
    case 0:
    case 1:
      return fmt::format("INSERT OR ROLLBACK INTO u VALUES({}, {})", pick(dice, 40), k);
    case 2:
      return fmt::format("INSERT INTO r VALUES({}, 0)", k);
    case 3:
    case 4:
      return fmt::format("INSERT INTO c(p) VALUES({})", k);
    case 5:
      return fmt::format("INSERT OR IGNORE INTO cc VALUES({})", k);
    case 6:
      return fmt::format("DELETE FROM p WHERE id = {}", k);
    case 7:
      return fmt::format("UPDATE p SET id = id + 100 WHERE id = {}", k);
    case 8:
    case 9:
      return "PRAGMA defer_foreign_keys=ON";
    case 10:
      return "INSERT INTO tr VALUES(1)";
    case 11:
      return fmt::format("DELETE FROM r WHERE k % 3 = {}", k % 3);
    case 12:
      return pick(dice, 4) == 0 ? "VACUUM" : "PRAGMA foreign_keys";
    default:
      return mild_statement(dice);
  }
}

std::string control(Dice& dice) {
  constexpr const char* kControls[] = {"BEGIN",
                                       "BEGIN IMMEDIATE",
                                       "BEGIN EXCLUSIVE TRANSACTION",
                                       "COMMIT",
                                       "END TRANSACTION",
                                       "ROLLBACK",
                                       "SAVEPOINT a",
                                       "SAVEPOINT \"b\"",
                                       "SAVEPOINT A",
                                       "SAVEPOINT 'x;y \x01t'",
                                       "RELEASE a",
                                       "RELEASE SAVEPOINT B",
                                       "RELEASE \"\x01t\"",
                                       "ROLLBACK TO a",
                                       "ROLLBACK TRANSACTION TO SAVEPOINT [A]",
                                       "ROLLBACK TO b",
                                       "EXPLAIN COMMIT",
                                       "EXPLAIN QUERY PLAN SELECT * FROM u WHERE k = 1"};
  return kControls[static_cast<std::size_t>(pick(dice, std::size(kControls)))];
}

Script random_script(Dice& dice) {
  Script script;
  script.is_text = pick(dice, 5) == 0;
  int shape = pick(dice, 4);
  if (shape < 2) {
    script.statements.push_back(statement(dice));
    return script;
  }
  if (shape == 2) {
    script.statements.push_back("BEGIN");
    for (int i = pick(dice, 5); i > 0; --i)
      script.statements.push_back(pick(dice, 5) != 0 ? statement(dice) : control(dice));
    script.statements.push_back(pick(dice, 5) != 0 ? "COMMIT" : "ROLLBACK");
    return script;
  }
  for (int i = 1 + pick(dice, 7); i > 0; --i)
    script.statements.push_back(pick(dice, 2) != 0 ? statement(dice) : control(dice));
  return script;
}

// Nothing in it makes it run alone.
Script mild_script(Dice& dice) {
  Script script;
  bool in_transaction = pick(dice, 2) == 0;
  if (in_transaction) script.statements.push_back("BEGIN");
  for (int i = 1 + pick(dice, 4); i > 0; --i) script.statements.push_back(mild_statement(dice));
  if (in_transaction) script.statements.push_back(pick(dice, 5) != 0 ? "COMMIT" : "ROLLBACK");
  return script;
}

std::string row_text(const sqlite::Statement& row) {
  std::string text;
  for (int i = 0; i < row.column_count(); ++i) {
    if (i > 0) text += '|';
    text += row.column_type(i) == SQLITE_NULL ? "NULL" : std::string(row.column_text(i));
  }
  return text;
}

// Stock SQLite: every request on a connection of its own, one after the other.
class Reference {
 public:
  Reference() : keeper_(connect()) { EXPECT_TRUE(keeper_.execute("PRAGMA journal_mode=WAL")); }

  std::vector<Answer> run(const Script& script) {
    sqlite::Connection connection = connect();
    std::vector<Answer> answers;
    if (script.is_text) {
      answers.push_back(run_text(connection, script.text()));
    } else {
      for (const std::string& sql : script.statements) {
        std::string_view rest = sql;
        answers.push_back(step_first(connection, rest));
      }
    }
    if (!connection.autocommit()) EXPECT_TRUE(connection.execute("ROLLBACK"));
    return answers;
  }

 private:
  static sqlite::Connection connect() {
    sqlite::Connection::Options options;
    options.create = true;
    options.vfs = FaultVfs::kName;
    auto connection = sqlite::Connection::open("stock/reference.db", options).value();
    sqlite3_db_config(connection.handle(), SQLITE_DBCONFIG_ENABLE_FKEY, 1, nullptr);
    sqlite3_db_config(connection.handle(), SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
    // SQLite 3.40 to 3.54 lose the whole database on SAVEPOINT a; BEGIN IMMEDIATE; ROLLBACK TO a
    // when these are the first statements of a connection.
    EXPECT_TRUE(connection.execute("SELECT 1 FROM sqlite_schema"));
    return connection;
  }

  static Answer failed(sqlite::Connection& connection) {
    Answer answer;
    answer.code = sqlite3_extended_errcode(connection.handle());
    answer.message = sqlite3_errmsg(connection.handle());
    return answer;
  }

  static Answer step_first(sqlite::Connection& connection, std::string_view& sql) {
    sqlite3* db = connection.handle();
    sqlite3_stmt* raw = nullptr;
    const char* tail = nullptr;
    int code = sqlite3_prepare_v2(db, sql.data(), static_cast<int>(sql.size()), &raw, &tail);
    sqlite::Statement prepared(raw);
    if (code != SQLITE_OK) return failed(connection);
    sql.remove_prefix(static_cast<std::size_t>(tail - sql.data()));
    std::int64_t before = sqlite3_total_changes64(db);
    Answer answer;
    while ((code = sqlite3_step(raw)) == SQLITE_ROW) answer.rows.push_back(row_text(prepared));
    if (code != SQLITE_DONE) return failed(connection);
    answer.changes = sqlite3_total_changes64(db) - before;
    answer.last_insert_rowid = sqlite3_last_insert_rowid(db);
    return answer;
  }

  static Answer run_text(sqlite::Connection& connection, const std::string& sql) {
    std::string_view rest = sql;
    while (rest.find_first_not_of("; ") != std::string_view::npos) {
      Answer answer = step_first(connection, rest);
      if (answer.code != 0) return answer;
    }
    return {};
  }

  sqlite::Connection keeper_;  // keeps others from being the last one, which checkpoints
};

// A script on the writer's queue, whatever it is made of.
class ScriptRequest final : public Request {
 public:
  explicit ScriptRequest(Script script) : script_(std::move(script)) {}
  std::future<Answers> future() { return promise_.get_future(); }

  void run(Session& session) override {
    answers_.statements.clear();
    if (script_.is_text) {
      add(session.execute_script(script_.text()), {});
      return;
    }
    for (const std::string& sql : script_.statements) {
      Answer answer;
      Sink sink(answer);
      SqlStatement one;
      one.sql = sql;
      auto result = session.execute(one, sink);
      if (session.lost()) return;
      if (result) {
        answer.changes = result->changes;
        answer.last_insert_rowid = result->last_insert_rowid;
      }
      add(result ? Result<>() : Result<>(fail(result.error())), std::move(answer));
    }
  }
  void done(Outcome outcome) override {
    answers_.outcome = std::move(outcome);
    promise_.set_value(std::move(answers_));
  }
  bool likely_read_only() const override { return false; }

 private:
  class Sink final : public RowSink {
   public:
    explicit Sink(Answer& answer) : answer_(answer) {}
    void columns(const sqlite::Statement&) override {}
    Result<> row(const sqlite::Statement& statement) override {
      answer_.rows.push_back(row_text(statement));
      return {};
    }

   private:
    Answer& answer_;
  };

  void add(const Result<>& result, Answer answer) {
    if (!result) {
      answer = {};
      answer.code = result.error().sqlite_code() != 0 ? result.error().sqlite_code() : -1;
      answer.message = result.error().message();
    }
    answers_.statements.push_back(std::move(answer));
  }

  Script script_;
  Answers answers_;
  std::promise<Answers> promise_;
};

std::string describe(const Answer& answer) {
  if (answer.code != 0) return fmt::format("{} {}", answer.code, answer.message);
  return fmt::format("ok, {} changes, rowid {}, rows [{}]", answer.changes,
                     answer.last_insert_rowid, fmt::join(answer.rows, ", "));
}

class BatchDifferentialTest : public StoreTest {
 protected:
  void SetUp() override {
    FaultVfs::instance().use(&disk_);
    ASSERT_TRUE(disk_.create_directories("stock"));
    reference_ = std::make_unique<Reference>();
    options_.directory = "data";
    options_.files = &disk_;
    options_.base_vfs = FaultVfs::kName;
    options_.journal.segment_size = 64 << 10;
    options_.journal.spare_segments = 0;
    options_.log_bytes_max = 256 << 10;
    options_.checkpoint_frames = 50;
    open();
    create("b");
    for (const char* sql : kSchema) {
      ASSERT_EQ(run("b", {sql}).statements.at(0).message, "") << sql;
      ASSERT_EQ(reference_->run({{sql}, false}).at(0).message, "") << sql;
    }
    dice_.seed(seed());
  }
  void TearDown() override {
    store_.reset();
    reference_.reset();
    FaultVfs::instance().use(nullptr);
  }

  static int rounds(int normal) {
    const char* text = std::getenv("OFFPRINT_TEST_ROUNDS");
    return text == nullptr ? normal : std::atoi(text);
  }
  static unsigned seed() {
    const char* text = std::getenv("OFFPRINT_TEST_SEED");
    return text == nullptr ? 1 : static_cast<unsigned>(std::atoi(text));
  }

  // Runs scripts so that they wait together: somebody else has the write slot meanwhile.
  std::vector<Answers> run_together(const std::vector<Script>& scripts) {
    Answers slot = run("b", {"BEGIN IMMEDIATE"}, true);
    EXPECT_TRUE(slot.outcome.held);
    std::vector<std::future<Answers>> futures;
    for (const Script& script : scripts) {
      auto request = std::make_unique<ScriptRequest>(script);
      futures.push_back(request->future());
      store_->submit(name("b"), std::move(request));
    }
    store_->release(slot.outcome.held);
    std::vector<Answers> answers;
    for (auto& future : futures) answers.push_back(future.get());
    return answers;
  }

  void expect_same(const Script& script, const std::vector<Answer>& got,
                   const std::vector<Answer>& want) {
    std::string story;
    bool same = got.size() == want.size();
    for (std::size_t i = 0; i < std::max(got.size(), want.size()); ++i) {
      std::string ours = i < got.size() ? describe(got[i]) : "nothing";
      std::string stock = i < want.size() ? describe(want[i]) : "nothing";
      same = same && ours == stock;
      story +=
          fmt::format("  {}\n    {}   {}\n", script.is_text ? script.text() : script.statements[i],
                      ours, ours == stock ? "" : "BUT STOCK SQLITE: " + stock);
    }
    ASSERT_TRUE(same) << story;
  }

  // Everything in the database, as SQL sees it.
  void expect_same_contents(const std::string& when) {
    const std::string schema = "SELECT type, name, sql FROM sqlite_schema ORDER BY 1, 2";
    std::vector<std::string> queries = {schema, "PRAGMA user_version", "PRAGMA integrity_check",
                                        "PRAGMA foreign_key_check"};
    const std::string tables = "SELECT name FROM sqlite_schema WHERE type='table' ORDER BY 1";
    std::vector<std::string> names = reference_->run({{tables}, false}).at(0).rows;
    for (const std::string& table : names)
      queries.push_back(fmt::format("SELECT * FROM \"{}\"", table));
    Answers ours = run("b", queries);
    std::vector<Answer> stock = reference_->run({queries, false});
    ASSERT_EQ(ours.statements.size(), queries.size());
    for (std::size_t i = 0; i < queries.size(); ++i)
      ASSERT_EQ(ours.statements[i].rows, stock[i].rows) << queries[i] << "\n" << when;
  }

  FaultFileSystem disk_;
  std::atomic<bool> is_full_{false};
  std::unique_ptr<Reference> reference_;
  Dice dice_;
};

TEST_F(BatchDifferentialTest, EachRequestGetsWhatItAloneWouldHaveGot) {
  int requests = 0;
  int statements = 0;
  int batches = rounds(900);
  StoreMetrics before = store_->metrics();
  for (int batch = 0; batch < batches; ++batch) {
    std::vector<Script> scripts;
    for (int i = 1 + pick(dice_, 10); i > 0; --i) scripts.push_back(random_script(dice_));
    std::vector<Answers> answers = run_together(scripts);
    std::string story = fmt::format("after batch {}:\n", batch);
    for (std::size_t i = 0; i < scripts.size(); ++i) {
      ASSERT_EQ(answers[i].outcome.state, Outcome::State::kCommitted)
          << scripts[i].text() << ": " << answers[i].outcome.error->message();
      story += "  " + scripts[i].text() + "\n";
      ASSERT_NO_FATAL_FAILURE(
          expect_same(scripts[i], answers[i].statements, reference_->run(scripts[i])))
          << "batch " << batch << ", request " << i;
      ++requests;
      statements += static_cast<int>(scripts[i].statements.size());
    }
    ASSERT_NO_FATAL_FAILURE(expect_same_contents(story));
  }
  StoreMetrics after = store_->metrics();
  fmt::print("{} requests, {} statements in {} batches: {} transactions, {} offenders\n", requests,
             statements, batches, after.transactions - before.transactions,
             after.offenders - before.offenders);
  // They did share transactions, and some of them had to be taken out again.
  EXPECT_LT(after.transactions - before.transactions, static_cast<std::uint64_t>(requests) * 2 / 3);
  EXPECT_GT(after.offenders - before.offenders, static_cast<std::uint64_t>(batches) / 4);
}

TEST_F(BatchDifferentialTest, RefusedCommitsLeaveNothingAndLaterOnesWork) {
  disk_.set_hook([this](const FaultFileSystem::Call& call) {
    bool new_segment = call.path.ends_with("/journal/new.tmp");
    return is_full_ && new_segment && call.operation == FaultFileSystem::Operation::kAllocate
               ? ENOSPC
               : 0;
  });
  int refused = 0;
  int committed = 0;
  int batches = rounds(500);
  for (int batch = 0; batch < batches; ++batch) {
    std::vector<Script> scripts;
    for (int i = 1 + pick(dice_, 8); i > 0; --i) scripts.push_back(mild_script(dice_));
    is_full_ = pick(dice_, 3) != 0;
    std::vector<Answers> answers = run_together(scripts);
    is_full_ = false;
    for (std::size_t i = 0; i < scripts.size(); ++i) {
      const Outcome& outcome = answers[i].outcome;
      if (outcome.state == Outcome::State::kRejected) {
        ASSERT_EQ(outcome.error->code(), Code::kFull) << outcome.error->message();
        ++refused;
        continue;
      }
      ASSERT_EQ(outcome.state, Outcome::State::kCommitted);
      ASSERT_NO_FATAL_FAILURE(
          expect_same(scripts[i], answers[i].statements, reference_->run(scripts[i])))
          << "batch " << batch << ", request " << i;
      ++committed;
    }
    ASSERT_NO_FATAL_FAILURE(expect_same_contents(fmt::format("after batch {}", batch)));
  }
  fmt::print("{} requests committed, {} refused\n", committed, refused);
  EXPECT_GT(committed, batches);
  if (batches >= 500) EXPECT_GT(refused, batches / 10);
}

}  // namespace
}  // namespace offprint::database::testing
