// What a request's SQL may do, and what it may not do to the requests that share its transaction.
#include <functional>
#include <thread>

#include <fmt/format.h>

#include "database/session_testing.h"

namespace offprint::database::testing {
namespace {

using namespace std::chrono_literals;

// SQLite's memory, which runs out on demand, on one thread at a time.
class ScarceMemory {
 public:
  // The n-th allocation of this thread from now on fails (0: the next), once.
  static void fail_after(int n) { left = n; }
  // Whether it has failed.
  static bool stop() { return std::exchange(left, -1) < 0; }

 private:
  static bool fails() { return left >= 0 && left-- == 0; }
  static void* allocate(int size) { return fails() ? nullptr : system.xMalloc(size); }
  static void* reallocate(void* old, int size) {
    return fails() ? nullptr : system.xRealloc(old, size);
  }

  static thread_local int left;
  static sqlite3_mem_methods system;
  static const bool kInstalled;
};

thread_local int ScarceMemory::left = -1;
sqlite3_mem_methods ScarceMemory::system;
// Before SQLite is used for the first time.
const bool ScarceMemory::kInstalled = [] {
  if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &system) != SQLITE_OK) return false;
  sqlite3_mem_methods scarce = system;
  scarce.xMalloc = allocate;
  scarce.xRealloc = reallocate;
  return sqlite3_config(SQLITE_CONFIG_MALLOC, &scarce) == SQLITE_OK;
}();

// --- what ends a whole SQLite transaction, and what does not

TEST_F(SessionTest, ConflictsEndOnlyTheirOwnRequest) {
  make({"CREATE TABLE u(k INTEGER UNIQUE)", "CREATE TABLE r(k INTEGER UNIQUE ON CONFLICT ROLLBACK)",
        "INSERT INTO u VALUES(1)", "INSERT INTO r VALUES(1)", "CREATE TABLE tr(x)",
        "CREATE TRIGGER t1 AFTER INSERT ON tr WHEN new.x = 1 BEGIN SELECT RAISE(ROLLBACK, ''); END",
        "CREATE TRIGGER t2 AFTER INSERT ON tr WHEN new.x = 2 BEGIN SELECT RAISE(ABORT, ''); END",
        "CREATE TRIGGER t3 AFTER INSERT ON tr WHEN new.x = 3 BEGIN SELECT RAISE(FAIL, ''); END",
        "CREATE TRIGGER t4 BEFORE INSERT ON tr WHEN new.x = 4 BEGIN SELECT RAISE(IGNORE); END"});
  EXPECT_EQ(code_of({"INSERT OR ROLLBACK INTO u VALUES(1)"}), SQLITE_CONSTRAINT_UNIQUE);
  EXPECT_EQ(code_of({"INSERT INTO r VALUES(1)"}), SQLITE_CONSTRAINT_UNIQUE);
  EXPECT_EQ(code_of({"INSERT INTO tr VALUES(1)"}), SQLITE_CONSTRAINT_TRIGGER);
  EXPECT_EQ(code_of({"INSERT INTO tr VALUES(0), (2)"}), SQLITE_CONSTRAINT_TRIGGER);
  EXPECT_EQ(code_of({"INSERT OR ABORT INTO u VALUES(5), (1)"}), SQLITE_CONSTRAINT_UNIQUE);
  EXPECT_EQ(query("b", "SELECT count(*) FROM tr"), "0");
  // FAIL keeps what came before it.
  EXPECT_EQ(code_of({"INSERT OR FAIL INTO u VALUES(2), (1), (9)"}), SQLITE_CONSTRAINT_UNIQUE);
  EXPECT_EQ(code_of({"INSERT INTO tr VALUES(0), (3), (0)"}), SQLITE_CONSTRAINT_TRIGGER);
  EXPECT_EQ(code_of({"INSERT INTO tr VALUES(4), (5)"}), SQLITE_OK);
  EXPECT_EQ(query("b", "SELECT group_concat(k) FROM u"), "1,2");
  EXPECT_EQ(query("b", "SELECT group_concat(x) FROM tr"), "0,3,5");
}

TEST_F(SessionTest, RollbackInATransactionEndsThatTransactionOnly) {
  make({"CREATE TABLE u(k INTEGER UNIQUE)", "INSERT INTO u VALUES(1)"});
  auto answers =
      together({{"BEGIN", "INSERT INTO u VALUES(2)", "INSERT OR ROLLBACK INTO u VALUES(1)",
                 "INSERT INTO u VALUES(3)", "COMMIT"}});
  EXPECT_EQ(answers[0].statements[2].code, SQLITE_CONSTRAINT_UNIQUE);
  EXPECT_EQ(answers[0].statements[3].code, SQLITE_OK);  // alone again, as in stock SQLite
  EXPECT_EQ(answers[0].statements[4].message, "cannot commit - no transaction is active");
  EXPECT_EQ(query("b", "SELECT group_concat(k) FROM u"), "1,3");
}

TEST_F(SessionTest, DeadlineInAWriteEndsOnlyItsRequest) {
  make({"CREATE TABLE t(a)",
        "INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < "
        "3000) SELECT i FROM c"});
  const std::string endless =
      "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT i FROM c";
  for (const std::string& sql :
       {"INSERT INTO t " + endless, "UPDATE t SET a = (SELECT max(i) FROM (" + endless + "))",
        "INSERT INTO t " + endless + " RETURNING a"}) {
    Answers slot = run("b", {"BEGIN IMMEDIATE"}, true);
    auto before = start("b", {"INSERT INTO t VALUES('before')"});
    auto slow = std::make_unique<TextRequest>(Texts{"INSERT INTO t VALUES('mine')", sql}, false);
    slow->deadline = SteadyClock::now() + 150ms;
    auto slow_answer = slow->future();
    store_->submit(name("b"), std::move(slow));
    auto after = start("b", {"INSERT INTO t VALUES('after')"});
    store_->release(slot.outcome.held);
    Answers timed_out = slow_answer.get();
    ASSERT_TRUE(timed_out.outcome.error) << sql;
    EXPECT_EQ(timed_out.outcome.state, Outcome::State::kRejected);
    EXPECT_EQ(timed_out.outcome.error->code(), Code::kTimeout);
    EXPECT_EQ(before.get().outcome.state, Outcome::State::kCommitted);
    EXPECT_EQ(after.get().outcome.state, Outcome::State::kCommitted);
    EXPECT_EQ(query("b", "SELECT group_concat(a) FROM t WHERE typeof(a) = 'text'"), "before,after");
    run("b", {"DELETE FROM t WHERE typeof(a) = 'text'"});
  }
}

TEST_F(SessionTest, DeadlineInAReadFailsThatStatementOnly) {
  make({"CREATE TABLE t(a)"});
  std::string error;
  Outcome outcome = run_code(
      [&](Session& session) {
        FunctionSink sink([](const auto&) -> Result<> { return {}; });
        SqlStatement write;
        write.sql = "INSERT INTO t VALUES(1)";
        ASSERT_TRUE(session.execute(write, sink));
        SqlStatement slow;
        slow.sql =
            "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT max(i) "
            "FROM c";
        auto result = session.execute(slow, sink);
        error = result ? "none" : code_name(result.error().code());
      },
      SteadyClock::now() + 100ms);
  EXPECT_EQ(error, "timeout");
  EXPECT_EQ(outcome.state, Outcome::State::kCommitted);
  EXPECT_EQ(query("b", "SELECT count(*) FROM t"), "1");
}

TEST_F(SessionTest, ADeadlineThatPassedInTheQueueRefusesTheRequest) {
  make({"CREATE TABLE t(a)"});
  Answers slot = run("b", {"BEGIN IMMEDIATE"}, true);
  auto request = std::make_unique<TextRequest>(Texts{"INSERT INTO t VALUES(1)"}, false);
  request->deadline = SteadyClock::now();
  auto late = request->future();
  store_->submit(name("b"), std::move(request));
  store_->release(slot.outcome.held);
  EXPECT_EQ(late.get().outcome.error->code(), Code::kTimeout);
  EXPECT_EQ(query("b", "SELECT count(*) FROM t"), "0");
}

TEST_F(SessionTest, AFullDiskRefusesAndRecoversByItself) {
  make({"CREATE TABLE t(a)"});
  disk_.set_capacity(disk_.used_bytes() + 20'000);
  std::vector<std::future<Answers>> futures;
  for (int i = 0; i < 10; ++i)
    futures.push_back(start("b", {fmt::format("INSERT INTO t VALUES(zeroblob({}))", 900'000)}));
  for (auto& future : futures) {
    Answers got = future.get();
    bool refused = got.outcome.state == Outcome::State::kRejected ||
                   got.statements.at(0).code == SQLITE_FULL || got.statements.at(0).code == -1;
    EXPECT_TRUE(refused);
  }
  EXPECT_EQ(query("b", "SELECT count(*) FROM t"), "0");  // reads go on
  disk_.set_capacity(UINT64_MAX);
  EXPECT_EQ(code_of({"INSERT INTO t VALUES(zeroblob(900000))"}), SQLITE_OK);
  EXPECT_EQ(query("b", "SELECT count(*) FROM t"), "1");
  EXPECT_NE(run("b", {"PRAGMA max_page_count=10"}).statements[0].code, 0);  // no such limit
}

TEST_F(SessionTest, AWriteErrorInMidTransactionEndsOnlyItsRequest) {
  make({"CREATE TABLE t(a)"});
  bool armed = true;
  disk_.set_hook([&](const FaultFileSystem::Call& call) {
    bool spills = call.operation == FaultFileSystem::Operation::kWrite &&
                  call.path.ends_with(".db-wal") && call.offset > 2'000'000;
    return spills && std::exchange(armed, false) ? EIO : 0;
  });
  const std::string large =
      "INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < "
      "1500) SELECT randomblob(4000) FROM c";
  EXPECT_EQ(code_of({large}), SQLITE_OK);  // the second time, alone
  disk_.set_hook(nullptr);
  EXPECT_FALSE(armed);
  EXPECT_EQ(query("b", "SELECT count(*) FROM t"), "1500");
}

TEST_F(SessionTest, TooBigValuesFailTheirStatementOnly) {
  make({"CREATE TABLE t(a)"});
  EXPECT_EQ(code_of({"INSERT INTO t VALUES(zeroblob(1000000001))"}), SQLITE_TOOBIG);
  EXPECT_EQ(code_of({"INSERT INTO t SELECT zeroblob(value) FROM (SELECT 1 AS value UNION ALL "
                     "SELECT 2000000000)"}),
            SQLITE_TOOBIG);
  EXPECT_EQ(query("b", "SELECT count(*) FROM t"), "0");
}

TEST_F(SessionTest, RunningOutOfMemoryAnywhereHurtsNobodyElse) {
  make({"CREATE TABLE t(id INTEGER PRIMARY KEY, a)", "CREATE INDEX i ON t(a)",
        "CREATE TABLE neighbour(id INTEGER PRIMARY KEY)"});
  const std::vector<Texts> shapes = {
      {"INSERT INTO t(a) VALUES(randomblob(10))"},
      {"BEGIN", "INSERT INTO t(a) VALUES(1)", "SAVEPOINT x", "UPDATE t SET a = a || 'x'",
       "RELEASE x", "COMMIT"},
      {"INSERT INTO t(a) SELECT a FROM t LIMIT 10 RETURNING id"},
      {"SELECT count(*), max(a) FROM t WHERE a IN (SELECT a FROM t)"}};
  int failures = 0;
  for (const Texts& shape : shapes) {
    bool exhausted = false;
    for (int n = 0; !exhausted; n += n < 60 ? 1 : 13) {
      std::string rows_before = query("b", "SELECT count(*) FROM t");
      std::atomic<bool> failed{false};
      std::atomic<bool> succeeded{false};
      Answers slot = run("b", {"BEGIN IMMEDIATE"}, true);
      auto before = start("b", {"INSERT INTO neighbour DEFAULT VALUES"});
      auto request = std::make_unique<CodeRequest>([&](Session& session) {
        failed = succeeded = false;
        FunctionSink sink([](const auto&) -> Result<> { return {}; });
        ScarceMemory::fail_after(n);
        bool good = true;
        for (const std::string& sql : shape) {
          SqlStatement statement;
          statement.sql = sql;
          good = good && session.execute(statement, sink).has_value();
        }
        failed = ScarceMemory::stop();
        succeeded = good;
      });
      auto outcome = request->future();
      store_->submit(name("b"), std::move(request));
      auto after = start("b", {"INSERT INTO neighbour DEFAULT VALUES"});
      store_->release(slot.outcome.held);
      outcome.get();
      EXPECT_EQ(before.get().statements.at(0).message, "");
      EXPECT_EQ(after.get().statements.at(0).message, "");
      neighbours_ += 2;
      exhausted = !failed;
      if (failed) ++failures;
      bool reads = shape.size() == 1 && shape[0].starts_with("SELECT");
      bool wrote = query("b", "SELECT count(*) FROM t") != rows_before;
      if (!reads) ASSERT_EQ(wrote, succeeded.load()) << shape[0] << " at allocation " << n;
    }
  }
  EXPECT_EQ(query("b", "SELECT count(*) FROM neighbour"), std::to_string(neighbours_));
  EXPECT_EQ(query("b", "PRAGMA integrity_check"), "ok");
  EXPECT_GT(failures, 50);
}

TEST_F(SessionTest, RowsThatCannotBeTakenUndoTheirStatement) {
  make({"CREATE TABLE t(a)"});
  Outcome outcome = run_code([](Session& session) {
    FunctionSink sink([](const auto&) -> Result<> { return fail(Code::kTooLarge, "too much"); });
    SqlStatement statement;
    statement.sql = "INSERT INTO t VALUES(1), (2) RETURNING a";
    EXPECT_EQ(session.execute(statement, sink).error().code(), Code::kTooLarge);
    statement.sql = "INSERT INTO t VALUES(3)";
    EXPECT_TRUE(session.execute(statement, sink));
  });
  EXPECT_EQ(outcome.state, Outcome::State::kCommitted);
  EXPECT_EQ(query("b", "SELECT group_concat(a) FROM t"), "3");
}

// --- foreign keys

class ForeignKeyTest : public SessionTest {
 protected:
  void SetUp() override {
    SessionTest::SetUp();
    make({"CREATE TABLE p(id INTEGER PRIMARY KEY)",
          "CREATE TABLE c(p REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)",
          "CREATE TABLE ci(p REFERENCES p(id))"});
  }
};

TEST_F(ForeignKeyTest, AViolationIsItsOwnRequestsOnly) {
  auto answers = together({{"INSERT INTO c VALUES(1)"},
                           {"INSERT INTO ci VALUES(1)"},
                           {"BEGIN", "INSERT INTO c VALUES(2)", "COMMIT"},
                           {"INSERT INTO p VALUES(3)"}});
  EXPECT_EQ(answers[0].statements[0].code, SQLITE_CONSTRAINT_FOREIGNKEY);
  EXPECT_EQ(answers[1].statements[0].code, SQLITE_CONSTRAINT_FOREIGNKEY);
  EXPECT_EQ(answers[2].statements[1].code, SQLITE_OK);
  EXPECT_EQ(answers[2].statements[2].code, SQLITE_CONSTRAINT_FOREIGNKEY);
  EXPECT_EQ(answers[3].statements[0].code, SQLITE_OK);
  EXPECT_EQ(query("b", "SELECT (SELECT count(*) FROM c), (SELECT count(*) FROM p)"), "0|1");
}

TEST_F(ForeignKeyTest, AFailedCommitLeavesTheTransactionOpenForACure) {
  auto answers = together(
      {{"BEGIN", "INSERT INTO c VALUES(1)", "COMMIT", "INSERT INTO p VALUES(1)", "COMMIT"}});
  EXPECT_EQ(answers[0].statements[2].code, SQLITE_CONSTRAINT_FOREIGNKEY);
  EXPECT_EQ(answers[0].statements[4].code, SQLITE_OK);
  EXPECT_EQ(query("b", "SELECT count(*) FROM c"), "1");
}

TEST_F(ForeignKeyTest, SavepointsCarryAndUndoViolations) {
  auto answers =
      together({{"SAVEPOINT a", "SAVEPOINT b", "INSERT INTO c VALUES(1)", "RELEASE b", "RELEASE a",
                 "ROLLBACK TO a", "RELEASE a"},
                {"SAVEPOINT a", "INSERT INTO c VALUES(1)", "ROLLBACK TO a", "RELEASE a"}});
  EXPECT_EQ(answers[0].statements[3].code, SQLITE_OK);  // carried on
  EXPECT_EQ(answers[0].statements[4].code, SQLITE_CONSTRAINT_FOREIGNKEY);
  EXPECT_EQ(answers[0].statements[6].code, SQLITE_OK);
  EXPECT_EQ(answers[1].statements[3].code, SQLITE_OK);
  EXPECT_EQ(query("b", "SELECT count(*) FROM c"), "0");
}

TEST_F(ForeignKeyTest, DeferForeignKeysDoesNotReachNeighbours) {
  auto answers =
      together({{"PRAGMA defer_foreign_keys=ON"},
                {"INSERT INTO ci VALUES(1)"},
                {"BEGIN", "PRAGMA defer_foreign_keys=ON", "INSERT INTO ci VALUES(2)",
                 "INSERT INTO p VALUES(2)", "COMMIT"},
                {"BEGIN", "INSERT INTO ci VALUES(3)", "INSERT INTO p VALUES(3)", "COMMIT"}});
  EXPECT_EQ(answers[1].statements[0].code, SQLITE_CONSTRAINT_FOREIGNKEY);
  EXPECT_EQ(answers[2].statements[4].code, SQLITE_OK);
  EXPECT_EQ(answers[3].statements[1].code, SQLITE_CONSTRAINT_FOREIGNKEY);
  EXPECT_EQ(query("b", "SELECT group_concat(p) FROM ci"), "2");
}

TEST_F(ForeignKeyTest, DroppingAParentChecksItsChildren) {
  make({"INSERT INTO p VALUES(1)", "INSERT INTO ci VALUES(1)"});
  EXPECT_EQ(code_of({"DROP TABLE p"}), SQLITE_CONSTRAINT_FOREIGNKEY);
  make({"DELETE FROM ci", "INSERT INTO c VALUES(1)"});
  EXPECT_EQ(code_of({"DROP TABLE p"}), SQLITE_CONSTRAINT_FOREIGNKEY);
  auto answers = together({{"BEGIN", "DROP TABLE p", "CREATE TABLE p(id INTEGER PRIMARY KEY)",
                            "INSERT INTO p VALUES(1)", "COMMIT"}});
  EXPECT_EQ(answers[0].statements[1].code, SQLITE_OK);
  EXPECT_EQ(answers[0].statements[4].code, SQLITE_OK);
  EXPECT_EQ(query("b", "SELECT (SELECT count(*) FROM p), (SELECT count(*) FROM c)"), "1|1");
}

// What migrations send: a table that others refer to is made anew.
TEST_F(ForeignKeyTest, AreOffForTheRequestThatSwitchesThemOff) {
  make({"CREATE TABLE k(p REFERENCES p(id) ON DELETE CASCADE)", "INSERT INTO p VALUES(1)",
        "INSERT INTO k VALUES(1)"});
  const Texts rebuild = {"PRAGMA foreign_keys=off",
                         "PRAGMA foreign_keys",
                         "BEGIN",
                         "CREATE TABLE p2(id INTEGER PRIMARY KEY, more TEXT)",
                         "INSERT INTO p2(id) SELECT id FROM p",
                         "PRAGMA foreign_keys=on",  // nothing, as in SQLite
                         "DROP TABLE p",
                         "ALTER TABLE p2 RENAME TO p",
                         "COMMIT"};
  auto answers = together(
      {rebuild, {"INSERT INTO ci VALUES(99)"}, {"PRAGMA foreign_keys=0", "DELETE FROM nowhere"}});
  for (const Answer& answer : answers[0].statements) EXPECT_EQ(answer.message, "");
  EXPECT_EQ(answers[0].statements[1].rows.at(0), "0");
  EXPECT_EQ(answers[1].statements[0].code, SQLITE_CONSTRAINT_FOREIGNKEY);
  EXPECT_EQ(query("b", "SELECT (SELECT count(*) FROM k), (SELECT count(*) FROM p)"), "1|1");
  EXPECT_EQ(query("b", "PRAGMA foreign_keys"), "1");
  EXPECT_EQ(code_of({"INSERT INTO ci VALUES(99)"}), SQLITE_CONSTRAINT_FOREIGNKEY);
}

TEST_F(ForeignKeyTest, AreOffUntilTheOpenTransactionEnds) {
  make({"INSERT INTO p VALUES(1)", "INSERT INTO ci VALUES(1)"});
  Answers begun = run("b", {"PRAGMA foreign_keys=off", "BEGIN", "DELETE FROM p"}, true);
  ASSERT_TRUE(begun.outcome.held);
  store_->release(begun.outcome.held);
  EXPECT_EQ(code_of({"DELETE FROM p"}), SQLITE_CONSTRAINT_FOREIGNKEY);
  Answers no_transaction = run("b", {"PRAGMA foreign_keys=off"}, true);
  EXPECT_FALSE(no_transaction.outcome.held);
  EXPECT_EQ(code_of({"DELETE FROM p"}), SQLITE_CONSTRAINT_FOREIGNKEY);
}

TEST_F(ForeignKeyTest, CanBeOffForADatabase) {
  CreateOptions off;
  off.foreign_keys = false;
  create("off", off);
  Answers got = run("off", {"CREATE TABLE p(id INTEGER PRIMARY KEY)",
                            "CREATE TABLE c(p REFERENCES p(id))", "INSERT INTO c VALUES(1)"});
  EXPECT_EQ(got.statements[2].code, SQLITE_OK);
  EXPECT_EQ(query("off", "PRAGMA foreign_keys"), "0");
  run("off", {"PRAGMA foreign_keys=ON"});
  EXPECT_EQ(query("off", "PRAGMA foreign_keys"), "0");
}

TEST_F(SessionTest, ATextWithAZeroByteIsRefused) {
  for (const std::string& sql :
       {std::string("SELECT 1\0", 9), std::string("SELECT 1;\0SELECT 2", 18)}) {
    EXPECT_EQ(run("b", {sql}).statements[0].message.substr(0, 11), "SQL_HAS_NUL");
    auto request = std::make_unique<CodeRequest>([&](Session& session) {
      auto done = session.execute_script(sql);
      EXPECT_EQ(done.error().code(), Code::kInvalid);
    });
    auto future = request->future();
    store_->submit(name("b"), std::move(request));
    EXPECT_EQ(future.get().state, Outcome::State::kCommitted);
  }
}

// SQLite counts a table in one step, during which no progress is reported.
TEST_F(SessionTest, TheWatchdogEndsWhatForgetsTheTime) {
  make({"CREATE TABLE t(a)",
        "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 1000000) "
        "INSERT INTO t SELECT i FROM c"});
  std::string sql = "SELECT count(*) FROM t";
  for (int i = 0; i < 450; ++i) sql += " UNION ALL SELECT count(*) FROM t";
  for (const std::string& statement : {sql, "CREATE TABLE copy AS " + sql}) {
    auto request = std::make_unique<TextRequest>(Texts{statement}, false);
    request->deadline = SteadyClock::now() + 1ms;
    auto future = request->future();
    store_->submit(name("b"), std::move(request));
    Answers answers = future.get();
    ASSERT_TRUE(answers.outcome.error || answers.statements.at(0).code == SQLITE_INTERRUPT);
  }
  EXPECT_EQ(query("b", "SELECT count(*) FROM t"), "1000000");
}

TEST_F(SessionTest, CountersTellOfTheRequestsOwnRows) {
  make({"CREATE TABLE t(a)"});
  const std::string counters = "SELECT changes(), total_changes(), last_insert_rowid()";
  auto answers = together({{"INSERT INTO t VALUES(1), (2), (3)", counters},
                           {counters},
                           {"CREATE TABLE x(a)", counters},
                           {"UPDATE t SET a = 0 WHERE a = 99", counters},
                           {"DELETE FROM t WHERE a = 1", counters, "COMMIT", counters}});
  EXPECT_EQ(answers[0].statements[1].rows[0], "3|3|3");
  EXPECT_EQ(answers[1].statements[0].rows[0], "0|0|0");
  EXPECT_EQ(answers[2].statements[1].rows[0], "0|0|0");
  EXPECT_EQ(answers[3].statements[1].rows[0], "0|0|0");
  EXPECT_EQ(answers[4].statements[1].rows[0], "1|1|0");
  make({"DROP TABLE t", "DROP TABLE x", "DROP TABLE neighbour"});
  EXPECT_EQ(run("b", {"CREATE TABLE y(a)", counters}).statements[1].rows[0], "0|0|0");
  EXPECT_EQ(query("b", counters), "0|0|0");
}

// --- transaction control

TEST_F(SessionTest, ControlStatementsCannotEndTheSharedTransaction) {
  make({"CREATE TABLE t(a)"});
  for (const Texts& trick : std::vector<Texts>{{"COMMIT"},
                                               {"END TRANSACTION"},
                                               {"ROLLBACK"},
                                               {"RELEASE \"\x01t\""},
                                               {"RELEASE \"\x01s\""},
                                               {"ROLLBACK TO \"\x01t\""},
                                               {"BEGIN", "RELEASE \"\x01t\"", "ROLLBACK"},
                                               {"SAVEPOINT a",
                                                "RELEASE \"\x01"
                                                "0\"",
                                                "ROLLBACK"},
                                               {"SAVEPOINT a", "COMMIT", "COMMIT"},
                                               {"COMMIT; DROP TABLE t"},
                                               {"BEGIN", "COMMIT", "ROLLBACK", "COMMIT"}}) {
    together({trick});
  }
  auto answers = together({{"INSERT INTO t VALUES(1); COMMIT"}, {"SELECT 1; DROP TABLE t"}});
  EXPECT_TRUE(answers[0].statements[0].message.starts_with("SQL_MANY_STATEMENTS"));
  EXPECT_TRUE(answers[1].statements[0].message.starts_with("SQL_MANY_STATEMENTS"));
  EXPECT_EQ(query("b", "SELECT count(*) FROM t"), "0");
}

TEST_F(SessionTest, SavepointsMayHaveAnyName) {
  make({"CREATE TABLE t(a)"});
  auto answers =
      together({{"SAVEPOINT \"\x01t\"", "INSERT INTO t VALUES(1)", "SAVEPOINT \"\x01s\"",
                 "INSERT INTO t VALUES(2) RETURNING a", "ROLLBACK TO \"\x01S\"",
                 "SAVEPOINT \"x\"\"; COMMIT\"", "RELEASE \"X\"\"; commit\"", "RELEASE \"\x01T\""}});
  for (const Answer& answer : answers[0].statements) EXPECT_EQ(answer.message, "");
  EXPECT_EQ(query("b", "SELECT group_concat(a) FROM t"), "1");
}

TEST_F(SessionTest, EqualSavepointNamesNest) {
  make({"CREATE TABLE t(a)"});
  together({{"SAVEPOINT a", "INSERT INTO t VALUES(1)", "SAVEPOINT A", "INSERT INTO t VALUES(2)",
             "SAVEPOINT a", "INSERT INTO t VALUES(3)", "ROLLBACK TO a", "RELEASE A",
             "ROLLBACK TO a", "INSERT INTO t VALUES(4)", "RELEASE a", "RELEASE a"}});
  EXPECT_EQ(query("b", "SELECT group_concat(a) FROM t"), "1,4");
}

TEST_F(SessionTest, AnOpenTransactionIsRolledBackAtTheEndOfItsRequest) {
  make({"CREATE TABLE t(a)"});
  auto answers = together({{"BEGIN", "INSERT INTO t VALUES(1)"},
                           {"SAVEPOINT a", "INSERT INTO t VALUES(2)"},
                           {"INSERT INTO t VALUES(3)"}});
  EXPECT_EQ(answers[2].statements[0].code, SQLITE_OK);
  EXPECT_EQ(query("b", "SELECT group_concat(a) FROM t"), "3");
}

TEST_F(SessionTest, AFailedScriptStopsAndALongOneIsAtomicWhenItSaysSo) {
  make({"CREATE TABLE t(a UNIQUE)"});
  std::vector<std::string> errors;
  run_code([&](Session& session) {
    errors.clear();
    for (const char* script :
         {"INSERT INTO t VALUES(1); INSERT INTO t VALUES(1); INSERT INTO t VALUES(2)",
          "BEGIN; INSERT INTO t VALUES(5); INSERT INTO t VALUES(1); COMMIT", "ROLLBACK",
          "; ; -- nothing\n", "/* only a comment",
          "INSERT INTO t VALUES(7);;INSERT INTO t VALUES(8);"}) {
      auto result = session.execute_script(script);
      if (session.lost()) return;
      errors.push_back(result ? "" : result.error().message());
    }
  });
  EXPECT_EQ(errors, (Texts{"UNIQUE constraint failed: t.a", "UNIQUE constraint failed: t.a", "", "",
                           "", ""}));
  EXPECT_EQ(query("b", "SELECT group_concat(a) FROM t"), "1,7,8");
}

TEST_F(SessionTest, BeginInsideASavepointNeverReachesSqlite) {
  make({"CREATE TABLE t(a)", "INSERT INTO t VALUES(1)"});
  open();  // the writer's connection is new
  Answers got = run(
      "b", {"SAVEPOINT a", "BEGIN IMMEDIATE", "ROLLBACK TO a", "INSERT INTO t VALUES(2)"}, true);
  EXPECT_EQ(got.statements[1].message, "cannot start a transaction within a transaction");
  EXPECT_EQ(got.statements[3].message, "");
  Answers ended = run_held(
      got.outcome.held, {"BEGIN IMMEDIATE", "ROLLBACK TO a", "INSERT INTO t VALUES(3)", "COMMIT"});
  EXPECT_EQ(ended.statements[3].message, "");
  EXPECT_EQ(query("b", "SELECT group_concat(a) FROM t"), "1,3");
}

}  // namespace
}  // namespace offprint::database::testing
