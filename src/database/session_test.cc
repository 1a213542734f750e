// What a request's SQL may do, and what it may not do to the requests that share its transaction.
#include <functional>
#include <thread>

#include <fmt/format.h>

#include "base/fault_file_system.h"
#include "database/fault_vfs_testing.h"
#include "database/testing.h"
#include "ltx/checksum.h"

namespace offprint::database::testing {
namespace {

using namespace std::chrono_literals;
using Texts = std::vector<std::string>;

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
  static const bool installed;
};

thread_local int ScarceMemory::left = -1;
sqlite3_mem_methods ScarceMemory::system;
// Before SQLite is used for the first time.
const bool ScarceMemory::installed = [] {
  if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &system) != SQLITE_OK) return false;
  sqlite3_mem_methods scarce = system;
  scarce.xMalloc = allocate;
  scarce.xRealloc = reallocate;
  return sqlite3_config(SQLITE_CONFIG_MALLOC, &scarce) == SQLITE_OK;
}();

// A request made of code.
class CodeRequest final : public Request {
 public:
  explicit CodeRequest(std::function<void(Session&)> code) : code_(std::move(code)) {}
  std::future<Outcome> future() { return promise_.get_future(); }
  void run(Session& session) override { code_(session); }
  void done(Outcome outcome) override { promise_.set_value(std::move(outcome)); }
  bool likely_read_only() const override { return false; }

 private:
  std::function<void(Session&)> code_;
  std::promise<Outcome> promise_;
};

class FunctionSink final : public RowSink {
 public:
  explicit FunctionSink(std::function<Result<>(const sqlite::Statement&)> take)
      : take_(std::move(take)) {}
  void columns(const sqlite::Statement&) override {}
  Result<> row(const sqlite::Statement& statement) override { return take_(statement); }

 private:
  std::function<Result<>(const sqlite::Statement&)> take_;
};

class SessionTest : public StoreTest {
 protected:
  void SetUp() override {
    FaultVfs::instance().use(&disk_);
    options_.directory = "data";
    options_.files = &disk_;
    options_.base_vfs = FaultVfs::kName;
    options_.journal.segment_size = 256 << 10;
    open();
    create("b");
  }
  void TearDown() override {
    store_.reset();
    FaultVfs::instance().use(nullptr);
  }

  // Requests that wait together and share a transaction where they can, between two neighbours,
  // which must both be there afterwards.
  std::vector<Answers> together(const std::vector<Texts>& requests) {
    run("b", {"CREATE TABLE IF NOT EXISTS neighbour(id INTEGER PRIMARY KEY)"});
    Answers slot = run("b", {"BEGIN IMMEDIATE"}, true);
    EXPECT_TRUE(slot.outcome.held);
    auto before = start("b", {"INSERT INTO neighbour DEFAULT VALUES"});
    std::vector<std::future<Answers>> futures;
    for (const Texts& statements : requests) futures.push_back(start("b", statements));
    auto after = start("b", {"INSERT INTO neighbour DEFAULT VALUES"});
    store_->release(slot.outcome.held);
    std::vector<Answers> answers;
    for (auto& future : futures) answers.push_back(future.get());
    for (auto* neighbour : {&before, &after}) {
      Answers got = neighbour->get();
      EXPECT_EQ(got.outcome.state, Outcome::State::kCommitted);
      EXPECT_EQ(got.statements.at(0).message, "");
    }
    neighbours_ += 2;
    EXPECT_EQ(query("b", "SELECT count(*) FROM neighbour"), std::to_string(neighbours_));
    return answers;
  }
  // The code of the last statement.
  int code_of(const Texts& statements) {
    std::vector<Answers> answers = together({statements});
    EXPECT_EQ(answers[0].outcome.state, Outcome::State::kCommitted);
    return answers[0].statements.back().code;
  }
  Outcome run_code(std::function<void(Session&)> code, Deadline deadline = Deadline::max()) {
    auto request = std::make_unique<CodeRequest>(std::move(code));
    request->deadline = deadline;
    auto future = request->future();
    store_->submit(name("b"), std::move(request));
    return future.get();
  }
  void make(const Texts& statements) {
    for (const std::string& sql : statements)
      ASSERT_EQ(run("b", {sql}).statements.at(0).message, "") << sql;
  }

  FaultFileSystem disk_;
  int neighbours_ = 0;
};

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

TEST_F(ForeignKeyTest, CanBeOffForADatabaseButNotForARequest) {
  CreateOptions off;
  off.foreign_keys = false;
  create("off", off);
  Answers got = run("off", {"CREATE TABLE p(id INTEGER PRIMARY KEY)",
                            "CREATE TABLE c(p REFERENCES p(id))", "INSERT INTO c VALUES(1)"});
  EXPECT_EQ(got.statements[2].code, SQLITE_OK);
  EXPECT_EQ(query("off", "PRAGMA foreign_keys"), "0");
  run("off", {"PRAGMA foreign_keys=ON"});
  EXPECT_EQ(query("off", "PRAGMA foreign_keys"), "0");
  EXPECT_EQ(code_of({"PRAGMA foreign_keys=OFF", "INSERT INTO ci VALUES(1)"}),
            SQLITE_CONSTRAINT_FOREIGNKEY);
}

// --- state of the connection

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

TEST_F(SessionTest, SettingsOfTheConnectionCannotBeChanged) {
  make({"CREATE TABLE t(a)"});
  for (const char* sql : {"PRAGMA case_sensitive_like=ON",
                          "PRAGMA recursive_triggers=ON",
                          "PRAGMA query_only=ON",
                          "PRAGMA ignore_check_constraints=ON",
                          "PRAGMA secure_delete=ON",
                          "PRAGMA max_page_count=100",
                          "PRAGMA legacy_alter_table=ON",
                          "PRAGMA cell_size_check=ON",
                          "PRAGMA reverse_unordered_selects=ON",
                          "PRAGMA automatic_index=OFF",
                          "PRAGMA trusted_schema=OFF",
                          "PRAGMA writable_schema=ON",
                          "PRAGMA hard_heap_limit=1000000",
                          "PRAGMA soft_heap_limit=1",
                          "PRAGMA cache_spill=OFF",
                          "PRAGMA wal_autocheckpoint=1",
                          "PRAGMA journal_size_limit=0",
                          "PRAGMA checkpoint_fullfsync=ON",
                          "PRAGMA threads=4",
                          "PRAGMA read_uncommitted=ON",
                          "PRAGMA full_column_names=ON",
                          "PRAGMA short_column_names=OFF",
                          "PRAGMA locking_mode=EXCLUSIVE",
                          "PRAGMA synchronous=OFF",
                          "PRAGMA journal_mode=DELETE",
                          "PRAGMA main.journal_mode=TRUNCATE",
                          "PRAGMA wal_checkpoint(TRUNCATE)",
                          "PRAGMA page_size=512",
                          "PRAGMA auto_vacuum=1",
                          "PRAGMA encoding='UTF-16le'",
                          "PRAGMA temp_store_directory='/tmp'",
                          "PRAGMA data_store_directory='/tmp'",
                          "PRAGMA schema_version=1",
                          "PRAGMA fullfsync=ON",
                          "PRAGMA shrink_memory",
                          "PRAGMA parser_trace=ON",
                          "PRAGMA vdbe_debug=ON",
                          "PRAGMA key='x'",
                          "ATTACH ':memory:' AS x",
                          "ATTACH DATABASE 'data/databases/0000000000000000.db' AS x",
                          "DETACH main",
                          "VACUUM INTO 'copy.db'",
                          "CREATE TEMP TABLE t(a)",
                          "CREATE TEMP VIEW t AS SELECT 1",
                          "CREATE TEMP TRIGGER tt AFTER INSERT ON t BEGIN SELECT 1; END",
                          "CREATE TABLE temp.t(a)",
                          "CREATE VIEW temp.v AS SELECT 1",
                          "CREATE VIRTUAL TABLE temp.f USING fts5(a)",
                          "CREATE TRIGGER temp.tt AFTER INSERT ON t BEGIN SELECT 1; END",
                          "CREATE TABLE temp.t AS SELECT 1",
                          "SELECT load_extension('x')",
                          "SELECT * FROM pragma_locking_mode('EXCLUSIVE')",
                          "INSERT INTO sqlite_dbpage(pgno, data) VALUES(1, zeroblob(4096))",
                          "UPDATE sqlite_schema SET sql = ''",
                          "DELETE FROM sqlite_dbpage"}) {
    EXPECT_NE(code_of({sql}), SQLITE_OK) << sql;
  }
  // Nothing of it stuck, and what programs set by habit is accepted without effect.
  for (const char* sql : {"PRAGMA busy_timeout=1", "PRAGMA cache_size=1", "PRAGMA temp_store=2",
                          "PRAGMA analysis_limit=1", "PRAGMA mmap_size=1000",
                          "PRAGMA journal_mode=WAL", "PRAGMA foreign_keys=OFF"}) {
    EXPECT_EQ(code_of({sql}), SQLITE_OK) << sql;
  }
  auto state = together({{"PRAGMA synchronous", "PRAGMA journal_mode", "PRAGMA locking_mode",
                          "PRAGMA cache_size", "PRAGMA foreign_keys", "PRAGMA page_size",
                          "SELECT 'a' LIKE 'A'", "SELECT count(*) FROM sqlite_temp_schema"}});
  std::string text;
  for (const Answer& answer : state[0].statements) text += answer.rows.at(0) + " ";
  EXPECT_EQ(text, "2 wal normal -2000 1 4096 1 0 ");
}

TEST_F(SessionTest, WhatBelongsToTheDatabaseIsKept) {
  make({"CREATE TABLE t(a)", "PRAGMA user_version=7", "PRAGMA application_id=99", "PRAGMA optimize",
        "ANALYZE", "REINDEX", "PRAGMA incremental_vacuum"});
  open();
  EXPECT_EQ(query("b", "PRAGMA user_version"), "7");
  EXPECT_EQ(query("b", "PRAGMA application_id"), "99");
  EXPECT_EQ(query("b", "PRAGMA integrity_check"), "ok");
  EXPECT_EQ(query("b", "SELECT name FROM pragma_table_info('t')"), "a");
}

TEST_F(SessionTest, AReadingStatementThatWritesDoesSoThroughTheJournal) {
  make({"CREATE TABLE t(a)", "CREATE INDEX i ON t(a)", "INSERT INTO t VALUES(1), (2), (3)"});
  TxId before = store_->position(name("b"))->txid;
  // Analyzes tables that were never analyzed.
  Answers got = run("b", {"SELECT * FROM pragma_optimize(65538)"});
  EXPECT_EQ(got.statements.at(0).message, "");
  EXPECT_EQ(store_->position(name("b"))->txid, before.next());
  EXPECT_EQ(got.outcome.bookmark.txid, before.next());
  EXPECT_EQ(query("b", "SELECT count(*) > 0 FROM sqlite_stat1"), "1");
}

TEST_F(SessionTest, VacuumRunsAloneAndNotInATransaction) {
  make({"CREATE TABLE t(a)", "INSERT INTO t VALUES(zeroblob(500000))", "DELETE FROM t"});
  auto answers = together({{"VACUUM"},
                           {"BEGIN", "VACUUM", "COMMIT"},
                           {"/* first */ -- of all\n vacuum main;"},
                           {"EXPLAIN VACUUM"}});
  EXPECT_EQ(answers[0].statements[0].code, SQLITE_OK);
  EXPECT_EQ(answers[1].statements[1].message, "cannot VACUUM from within a transaction");
  EXPECT_EQ(answers[1].statements[2].code, SQLITE_OK);
  EXPECT_EQ(answers[2].statements[0].message, "");
  EXPECT_EQ(answers[3].statements[0].code, SQLITE_OK);
  EXPECT_LT(store_->info(name("b"))->page_count, 10u);
  Answers begun = run("b", {"BEGIN", "INSERT INTO t VALUES(1)", "VACUUM"}, true);
  EXPECT_EQ(begun.statements[2].message, "cannot VACUUM from within a transaction");
  run_held(begun.outcome.held, {"COMMIT"});
  EXPECT_EQ(query("b", "SELECT count(*) FROM t"), "1");
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

// --- what SQLite offers

TEST_F(SessionTest, SchemaFeaturesWork) {
  make({"CREATE TABLE g(a INT, b INT AS (a * 2) STORED, c INT AS (a + 1))",
        "CREATE TABLE w(k TEXT PRIMARY KEY, n INT) STRICT, WITHOUT ROWID",
        "CREATE VIRTUAL TABLE f USING fts5(body)",
        "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, y0, y1)", "CREATE TABLE audit(what)",
        "CREATE TRIGGER tg AFTER UPDATE OF a ON g BEGIN INSERT INTO audit VALUES(old.a || '>' || "
        "new.a); END",
        "CREATE VIEW v AS SELECT a, b FROM g", "CREATE INDEX gi ON g(b) WHERE a > 1",
        "INSERT INTO g(a) VALUES(1), (2)", "UPDATE g SET a = a + 10",
        "INSERT INTO w VALUES('x', 1) ON CONFLICT(k) DO UPDATE SET n = n + 1",
        "INSERT INTO w VALUES('x', 1) ON CONFLICT(k) DO UPDATE SET n = n + 1",
        "INSERT INTO f VALUES('the quick brown fox'), ('lazy dogs')",
        "INSERT INTO r VALUES(1, 0, 10, 0, 10), (2, 20, 30, 20, 30)",
        "ALTER TABLE g ADD COLUMN d DEFAULT 'new'", "ALTER TABLE g RENAME COLUMN d TO e",
        "ALTER TABLE audit RENAME TO journal", "ALTER TABLE g DROP COLUMN c"});
  open();
  EXPECT_EQ(query("b", "SELECT a, b, e FROM g"), "11|22|new\n12|24|new");
  EXPECT_EQ(query("b", "SELECT * FROM journal"), "1>11\n2>12");
  EXPECT_EQ(query("b", "SELECT n FROM w"), "2");
  EXPECT_EQ(query("b", "SELECT body FROM f WHERE f MATCH 'quick'"), "the quick brown fox");
  EXPECT_EQ(query("b", "SELECT id FROM r WHERE x1 < 15"), "1");
  EXPECT_EQ(run("b", {"INSERT INTO w VALUES('y', 'text')"}).statements[0].code,
            SQLITE_CONSTRAINT_DATATYPE);
  EXPECT_EQ(run("b", {"INSERT INTO g(a) VALUES(5) RETURNING a, b"}).statements[0].rows[0], "5|10");
}

TEST_F(SessionTest, FullTextSearchSharesBatches) {
  make({"CREATE VIRTUAL TABLE f USING fts5(body)"});
  std::vector<Texts> requests;
  for (int i = 0; i < 40; ++i) {
    requests.push_back({fmt::format("INSERT INTO f VALUES('word{} common')", i)});
    if (i % 8 == 3)
      requests.push_back({"BEGIN", "INSERT INTO f VALUES('undone common')", "ROLLBACK"});
    if (i % 8 == 5) requests.push_back({"INSERT INTO f(nothing) VALUES('x')"});
  }
  together(requests);
  EXPECT_EQ(query("b", "SELECT count(*) FROM f WHERE f MATCH 'common'"), "40");
  EXPECT_EQ(query("b", "SELECT count(*) FROM f WHERE f MATCH 'undone'"), "0");
  EXPECT_EQ(run("b", {"INSERT INTO f(f) VALUES('integrity-check')"}).statements[0].message, "");
}

TEST_F(SessionTest, ASchemaChangeUndoneInOneRequestDoesNotShowInOthers) {
  make({"CREATE TABLE t(a)", "INSERT INTO t VALUES(1)"});
  for (int round = 0; round < 3; ++round) {  // texts that came before are cached statements
    auto answers =
        together({{"SELECT * FROM t"},
                  {"BEGIN", "ALTER TABLE t ADD COLUMN b DEFAULT 5", "SELECT * FROM t", "ROLLBACK"},
                  {"SELECT * FROM t", "INSERT INTO t VALUES(1)", "DELETE FROM t WHERE rowid > 1"}});
    EXPECT_EQ(answers[1].statements[2].rows[0], "1|5");
    EXPECT_EQ(answers[2].statements[0].rows[0], "1");
    EXPECT_EQ(answers[2].statements[1].message, "");
  }
}

TEST_F(SessionTest, EveryPageSizeAutoVacuumAndEncoding) {
  int number = 0;
  for (std::uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
    for (int auto_vacuum = 0; auto_vacuum < 3; ++auto_vacuum) {
      CreateOptions options;
      options.page_size = page_size;
      options.auto_vacuum = auto_vacuum;
      options.encoding = std::vector<std::string>{"UTF-8", "UTF-16le",
                                                  "UTF-16be"}[static_cast<std::size_t>(number % 3)];
      std::string database = fmt::format("d{}", number++);
      create(database, options);
      run(database, {"CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b)"});
      run(database, {"INSERT INTO t(a, b) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
                     "FROM c WHERE i < 60) SELECT 'ä€' || i, randomblob(i * 40) FROM c"});
      run(database, {"DELETE FROM t WHERE id % 3 = 0", "PRAGMA incremental_vacuum"});
      run(database, {"UPDATE t SET b = randomblob(2000) WHERE id % 5 = 0"});
    }
  }
  open();
  for (int i = 0; i < number; ++i) {
    std::string database = fmt::format("d{}", i);
    DatabaseInfo info = *store_->info(name(database));
    EXPECT_EQ(query(database, "SELECT count(*), min(a) FROM t"), "40|ä€1");
    EXPECT_EQ(query(database, "PRAGMA page_size"), std::to_string(info.options.page_size));
    EXPECT_EQ(query(database, "PRAGMA auto_vacuum"), std::to_string(info.options.auto_vacuum));
    EXPECT_EQ(query(database, "PRAGMA encoding"), info.options.encoding);
    EXPECT_EQ(query(database, "PRAGMA integrity_check"), "ok");
    EXPECT_EQ(info.page_size, info.options.page_size);
    auto snapshot = store_->snapshot(name(database)).value();
    Checksum sum = ltx::kEmptyDatabase;
    for (PageNo page = 1; page <= snapshot->page_count(); ++page)
      sum = ltx::toggle(sum, ltx::page_checksum(page, *snapshot->page(page)));
    EXPECT_EQ(sum, snapshot->position().checksum) << info.options.page_size;
  }
  EXPECT_EQ(number, 24);
}

}  // namespace
}  // namespace offprint::database::testing
