#include <cstdio>
#include <optional>

#include <sys/resource.h>

#include "sqlite/capture_fault_vfs_testing.h"
#include "sqlite/capture_testing.h"

namespace offprint::sqlite::testing {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

std::int64_t number(Connection& connection, const char* sql) {
  Result<std::int64_t> value = connection.query_int(sql);
  EXPECT_TRUE(value) << value.error().message();
  return value.value_or(-1);
}

// A hosted database with a table t(v) and a gate.
class CaptureTest : public ::testing::Test {
 protected:
  void open(const char* vfs = "offprint") {
    connection_.emplace(open_hosted(path_, vfs));
    must(*connection_, "CREATE TABLE t(v)");
    Result<> set = set_commit_gate(*connection_, &gate_);
    ASSERT_TRUE(set) << set.error().message();
  }
  void open_over_faults() {
    reset_faults();
    register_capture_vfs("offprint-faulty", "faulty");
    open("offprint-faulty");
  }
  Connection stock() { return open_connection(path_); }
  WalPoint point_of(Connection& connection) {
    must(connection, "BEGIN");
    number(connection, "SELECT count(*) FROM t");
    Result<WalPoint> point = snapshot_point(connection);
    EXPECT_TRUE(point);
    must(connection, "COMMIT");
    return point.value_or(WalPoint{});
  }

  ScratchFolder folder_;
  std::string path_ = folder_ / "a.db";
  RecordingGate gate_;
  std::optional<Connection> connection_;
};

TEST_F(CaptureTest, CommitIsHandedOverWithItsPages) {
  open();
  must(*connection_, "INSERT INTO t VALUES('seen by nobody yet')");
  ASSERT_EQ(gate_.commits.size(), 1u);
  const RecordingGate::Seen& seen = gate_.commits[0];
  EXPECT_EQ(seen.pages, std::vector<std::uint32_t>{2});
  EXPECT_EQ(seen.page_count, 2u);
  Connection reader = stock();
  Result<Pages> now = read_pages(reader);
  ASSERT_TRUE(now);
  EXPECT_EQ(seen.images[0], now->images[1]);
  EXPECT_EQ(seen.point, point_of(reader));
  EXPECT_TRUE(gate_.broken_with.empty());
}

TEST_F(CaptureTest, CommitOfNothingIsNone) {
  open();
  must(*connection_, "BEGIN IMMEDIATE; COMMIT; UPDATE t SET v=1 WHERE 0");
  must(*connection_, "BEGIN IMMEDIATE; INSERT INTO t VALUES(1); ROLLBACK");
  EXPECT_TRUE(gate_.commits.empty());
}

TEST_F(CaptureTest, RefusedCommitLeavesNothing) {
  open();
  gate_.refuse = true;
  EXPECT_EQ(code_of(*connection_, "INSERT INTO t VALUES(1)"), SQLITE_IOERR_FSYNC);
  EXPECT_TRUE(connection_->autocommit());
  EXPECT_EQ(number(*connection_, "SELECT count(*) FROM t"), 0);
  gate_.refuse = false;
  must(*connection_, "INSERT INTO t VALUES(2)");
  EXPECT_EQ(number(*connection_, "SELECT v FROM t"), 2);
  EXPECT_TRUE(gate_.broken_with.empty());
}

TEST_F(CaptureTest, NobodySeesAnUndecidedCommit) {
  open();
  Connection reader = stock();
  int looked = 0;
  gate_.on_commit = [&] {
    ++looked;
    EXPECT_EQ(number(reader, "SELECT count(*) FROM t"), 0);
  };
  must(*connection_, "INSERT INTO t VALUES(1)");
  EXPECT_EQ(looked, 1);
  EXPECT_EQ(number(reader, "SELECT count(*) FROM t"), 1);
}

TEST_F(CaptureTest, CommitPastTheGateIsNoticed) {
  open();
  must(*connection_, "INSERT INTO t VALUES(1)");
  must(*connection_, "PRAGMA synchronous=NORMAL");
  must(*connection_, "INSERT INTO t VALUES(2)");
  EXPECT_EQ(gate_.commits.size(), 1u);
  ASSERT_EQ(gate_.broken_with.size(), 1u);
  EXPECT_EQ(gate_.broken_with[0], "a commit went past the gate: synchronous was not FULL");
  EXPECT_NE(code_of(*connection_, "INSERT INTO t VALUES(3)"), SQLITE_OK);
  EXPECT_EQ(gate_.broken_with.size(), 1u);
}

TEST_F(CaptureTest, FailedHeaderWriteBreaksTheConnection) {
  open_over_faults();
  must(*connection_, "INSERT INTO t VALUES(1)");
  // The only header that is written after the decision is the held one.
  gate_.on_commit = [] {
    faults().on_wal_write = [](int, sqlite3_int64) { return SQLITE_IOERR_WRITE; };
  };
  EXPECT_EQ(code_of(*connection_, "INSERT INTO t VALUES(2)"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(gate_.commits.size(), 2u);
  ASSERT_EQ(gate_.broken_with.size(), 1u);
  EXPECT_NE(gate_.broken_with[0].find("SQLITE_IOERR_WRITE"), std::string::npos)
      << gate_.broken_with[0];
  // Also when the disk works again.
  faults().on_wal_write = nullptr;
  EXPECT_NE(code_of(*connection_, "INSERT INTO t VALUES(3)"), SQLITE_OK);
  EXPECT_NE(code_of(*connection_, "SELECT count(*) FROM t"), SQLITE_OK);
  Connection reader = stock();
  EXPECT_EQ(number(reader, "SELECT count(*) FROM t"), 1);
}

TEST_F(CaptureTest, FailedPageWriteIsAnOrdinaryRollback) {
  open_over_faults();
  must(*connection_, "INSERT INTO t VALUES(1)");
  // The commit frame's header is held already when its page does not fit any more.
  faults().on_wal_write = [](int size, sqlite3_int64) {
    return size > 24 ? SQLITE_FULL : SQLITE_OK;
  };
  EXPECT_EQ(code_of(*connection_, "INSERT INTO t VALUES(2)"), SQLITE_FULL);
  EXPECT_TRUE(gate_.broken_with.empty());
  faults().on_wal_write = nullptr;
  must(*connection_, "INSERT INTO t VALUES(3)");
  EXPECT_EQ(gate_.commits.size(), 2u);
  EXPECT_EQ(number(*connection_, "SELECT sum(v) FROM t"), 4);
}

TEST_F(CaptureTest, DecidedCommitThatSqliteRollsBackBreaksTheConnection) {
  open_over_faults();
  // The wal-index grows by a region after 4,062 frames, after the decision; there it fails.
  must(*connection_, "CREATE TABLE w(v)");
  faults().fail_region_from = 1;
  int code = SQLITE_OK;
  for (int i = 0; i < 5000 && code == SQLITE_OK; ++i)
    code = code_of(*connection_, "UPDATE t SET v=1; INSERT INTO w VALUES(1)");
  EXPECT_EQ(code, SQLITE_IOERR_SHMMAP);
  ASSERT_EQ(gate_.broken_with.size(), 1u);
  EXPECT_EQ(gate_.broken_with[0], "SQLite rolled back a commit that was decided");
  EXPECT_NE(code_of(*connection_, "SELECT count(*) FROM w"), SQLITE_OK);
}

TEST_F(CaptureTest, OnlyTheGateSyncsACommit) {
  open_over_faults();
  must(*connection_, "INSERT INTO t VALUES(1)");
  faults().wal_syncs = 0;
  must(*connection_, "INSERT INTO t VALUES(2)");
  EXPECT_EQ(faults().wal_syncs, 0);
  // Without a held header the sync is real: that of a checkpoint, and of the header of a restarted
  // -wal.
  ASSERT_TRUE(checkpoint(*connection_, SQLITE_CHECKPOINT_PASSIVE));
  EXPECT_EQ(faults().wal_syncs, 1);
  must(*connection_, "INSERT INTO t VALUES(3)");
  EXPECT_EQ(faults().wal_syncs, 2);
  // And without a gate.
  ASSERT_TRUE(set_commit_gate(*connection_, nullptr));
  must(*connection_, "INSERT INTO t VALUES(4)");
  EXPECT_EQ(faults().wal_syncs, 3);
  EXPECT_EQ(gate_.commits.size(), 3u);
}

TEST_F(CaptureTest, CommitsAreNotPadded) {
  reset_faults();
  faults().powersafe_overwrite = false;
  register_capture_vfs("offprint-faulty", "faulty");
  open("offprint-faulty");
  must(*connection_, "INSERT INTO t VALUES(1)");
  faults().wal_writes = 0;
  must(*connection_, "INSERT INTO t VALUES(2)");
  EXPECT_EQ(faults().wal_writes, 2);  // one page, one header
  EXPECT_EQ(gate_.commits.size(), 2u);
}

TEST_F(CaptureTest, LargeTransactionIsReadBack) {
  open();
  must(*connection_, "PRAGMA cache_size=-1000");
  must(*connection_,
       "INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<2000) "
       "SELECT randomblob(3000) FROM c");
  EXPECT_EQ(capture_state(*connection_)->counts().from_file, 1u);
  ASSERT_EQ(gate_.commits.size(), 1u);
  Connection reader = stock();
  Result<Pages> now = read_pages(reader);
  ASSERT_TRUE(now);
  const RecordingGate::Seen& seen = gate_.commits[0];
  ASSERT_GT(seen.pages.size(), 2000u);
  for (std::size_t i = 0; i < seen.pages.size(); ++i)
    ASSERT_EQ(seen.images[i], now->images[seen.pages[i] - 1]);
}

// A gate that looks at every page and keeps none.
class CountingGate final : public RecordingGate {
 public:
  Result<> commit(CapturedTransaction& transaction) override {
    for (std::size_t i = 0; i < transaction.pages().size(); ++i) {
      OFFPRINT_TRY_ASSIGN(ByteView image, transaction.image(i));
      bytes += image.size();
    }
    return {};
  }
  std::size_t bytes = 0;
};

TEST_F(CaptureTest, HugeTransactionNeedsLittleMemory) {
  if (kSanitized) GTEST_SKIP() << "sanitizers keep freed memory";
  open();
  CountingGate gate;
  ASSERT_TRUE(set_commit_gate(*connection_, &gate));
  must(*connection_, "PRAGMA cache_size=-1000; INSERT INTO t VALUES(zeroblob(3000))");
  rusage before{};
  getrusage(RUSAGE_SELF, &before);
  must(*connection_,
       "INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<64) "
       "SELECT zeroblob(4000000) FROM c");
  rusage after{};
  getrusage(RUSAGE_SELF, &after);
  EXPECT_GT(gate.bytes, std::size_t{256'000'000});
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss,
            32 * 1024);  // KiB
}

TEST_F(CaptureTest, GateNeedsAWalDatabaseInFullMode) {
  register_capture_vfs();
  Connection plain = open_connection(folder_ / "plain.db");
  must(plain, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL");
  EXPECT_FALSE(set_commit_gate(plain, &gate_));

  Connection rollback = open_connection(folder_ / "rollback.db", "offprint");
  must(rollback, "CREATE TABLE t(v)");
  EXPECT_FALSE(set_commit_gate(rollback, &gate_));

  Connection normal = open_hosted(folder_ / "normal.db");
  must(normal, "PRAGMA synchronous=NORMAL");
  EXPECT_FALSE(set_commit_gate(normal, &gate_));

  Connection busy = open_hosted(folder_ / "busy.db");
  must(busy, "BEGIN");
  EXPECT_FALSE(set_commit_gate(busy, &gate_));
  must(busy, "COMMIT");
  EXPECT_TRUE(set_commit_gate(busy, &gate_));
}

TEST_F(CaptureTest, DatabaseWithAGateStaysInWalMode) {
  open();
  must(*connection_, "INSERT INTO t VALUES(1)");
  code_of(*connection_, "PRAGMA journal_mode=DELETE");
  code_of(*connection_, "INSERT INTO t VALUES(2)");
  Connection reader = stock();
  Result<std::string> mode = reader.query_text("PRAGMA journal_mode");
  ASSERT_TRUE(mode);
  EXPECT_EQ(*mode, "wal");
  // Nothing became visible that the gate did not accept.
  EXPECT_EQ(static_cast<std::size_t>(number(reader, "SELECT count(*) FROM t")),
            gate_.commits.size());
}

TEST_F(CaptureTest, ExclusiveLockingModeWritesNothing) {
  open();
  must(*connection_, "PRAGMA locking_mode=EXCLUSIVE");
  EXPECT_EQ(code_of(*connection_, "INSERT INTO t VALUES(1)"), SQLITE_IOERR_WRITE);
  must(*connection_, "PRAGMA locking_mode=NORMAL");
  must(*connection_, "SELECT count(*) FROM t");  // gives up the exclusive lock
  must(*connection_, "INSERT INTO t VALUES(2)");
  EXPECT_EQ(gate_.commits.size(), 1u);
  EXPECT_EQ(number(*connection_, "SELECT v FROM t"), 2);
  EXPECT_TRUE(gate_.broken_with.empty());
}

// --- what others write

TEST_F(CaptureTest, ForeignCommitsComeAsOneTransaction) {
  open();
  must(*connection_, "INSERT INTO t VALUES(1)");
  Connection foreign = stock();
  must(foreign, "INSERT INTO t VALUES(2)");
  must(foreign, "CREATE TABLE x(v)");
  must(*connection_, "INSERT INTO t VALUES(3)");
  ASSERT_EQ(gate_.foreign.size(), 1u);
  EXPECT_EQ(gate_.foreign[0].pages, (std::vector<std::uint32_t>{1, 2, 3}));
  EXPECT_EQ(gate_.foreign[0].page_count, 3u);
  EXPECT_EQ(gate_.commits.size(), 2u);
  must(*connection_, "INSERT INTO t VALUES(4)");
  EXPECT_EQ(gate_.foreign_calls, 1);
}

TEST_F(CaptureTest, RefusedForeignCommitRefusesOurWrite) {
  open();
  Connection foreign = stock();
  must(foreign, "INSERT INTO t VALUES(1)");
  gate_.refuse_foreign = true;
  EXPECT_EQ(code_of(*connection_, "BEGIN IMMEDIATE"), SQLITE_IOERR_LOCK);
  EXPECT_EQ(code_of(*connection_, "INSERT INTO t VALUES(2)"), SQLITE_IOERR_LOCK);
  EXPECT_EQ(gate_.foreign_calls, 2);
  must(foreign, "INSERT INTO t VALUES(3)");  // the lock was given back
  gate_.refuse_foreign = false;
  must(*connection_, "INSERT INTO t VALUES(4)");
  EXPECT_EQ(gate_.foreign.size(), 1u);
  EXPECT_EQ(number(*connection_, "SELECT count(*) FROM t"), 3);
}

TEST_F(CaptureTest, ForeignCommitAfterARestartIsToldFromTheNewGeneration) {
  open();
  must(*connection_, "INSERT INTO t VALUES(1)");
  Connection foreign = stock();
  ASSERT_TRUE(checkpoint(foreign, SQLITE_CHECKPOINT_RESTART));
  must(foreign, "INSERT INTO t VALUES(2)");
  must(foreign, "INSERT INTO t VALUES(3)");
  must(*connection_, "INSERT INTO t VALUES(4)");
  ASSERT_EQ(gate_.foreign.size(), 1u);
  EXPECT_EQ(gate_.foreign[0].pages, std::vector<std::uint32_t>{2});
}

TEST_F(CaptureTest, ForeignCommitOverwrittenInTheWalIsUnknown) {
  open();
  must(*connection_, "INSERT INTO t VALUES(1)");
  Connection foreign = stock();
  must(foreign, "INSERT INTO t VALUES(2)");
  ASSERT_TRUE(checkpoint(foreign, SQLITE_CHECKPOINT_RESTART));
  must(foreign, "INSERT INTO t VALUES(3)");
  must(*connection_, "INSERT INTO t VALUES(4)");
  EXPECT_EQ(gate_.foreign_unknown, 1);
  EXPECT_TRUE(gate_.foreign.empty());
  must(foreign, "INSERT INTO t VALUES(5)");
  ASSERT_TRUE(checkpoint(foreign, SQLITE_CHECKPOINT_TRUNCATE));
  must(*connection_, "INSERT INTO t VALUES(6)");
  EXPECT_EQ(gate_.foreign_unknown, 2);
}

TEST_F(CaptureTest, CheckpointsAndOwnRollbacksAreNotForeign) {
  open();
  Connection foreign = stock();
  for (int mode : {SQLITE_CHECKPOINT_PASSIVE, SQLITE_CHECKPOINT_FULL, SQLITE_CHECKPOINT_RESTART,
                   SQLITE_CHECKPOINT_TRUNCATE}) {
    for (Connection* by : {&foreign, &*connection_}) {
      must(*connection_, "INSERT INTO t VALUES(1)");
      ASSERT_TRUE(checkpoint(*by, mode));
      must(foreign, "BEGIN IMMEDIATE; INSERT INTO t VALUES(1); ROLLBACK");
      must(*connection_, "BEGIN IMMEDIATE; INSERT INTO t VALUES(1); ROLLBACK");
      gate_.refuse = true;  // and this one restarts the -wal before it is refused
      EXPECT_EQ(code_of(*connection_, "INSERT INTO t VALUES(1)"), SQLITE_IOERR_FSYNC);
      gate_.refuse = false;
      must(*connection_, "INSERT INTO t VALUES(1)");
      EXPECT_EQ(gate_.foreign_calls, 0) << mode;
    }
  }
}

// Spoils the wal-index header, so that the next reader recovers it from the -wal: its change
// counter begins at 0 again.
void spoil_wal_index(const std::string& database) {
  FILE* file = std::fopen((database + "-shm").c_str(), "r+b");
  ASSERT_NE(file, nullptr);
  char zeros[96] = {};
  ASSERT_EQ(std::fwrite(zeros, 1, sizeof zeros, file), sizeof zeros);
  std::fclose(file);
}

TEST_F(CaptureTest, RecoveredWalIndexIsNotForeign) {
  open();
  must(*connection_, "INSERT INTO t VALUES(1)");
  spoil_wal_index(path_);
  Connection foreign = stock();
  EXPECT_EQ(number(foreign, "SELECT count(*) FROM t"), 1);
  must(*connection_, "INSERT INTO t VALUES(2)");
  EXPECT_EQ(gate_.foreign_calls, 0);
  // Recovered by ourselves.
  spoil_wal_index(path_);
  must(*connection_, "INSERT INTO t VALUES(3)");
  EXPECT_EQ(gate_.foreign_calls, 0);
  // A commit after a recovery is found, even when the counter happens to be what it was.
  spoil_wal_index(path_);
  for (int i = 0; i < 4; ++i) {
    must(foreign, "INSERT INTO t VALUES(4)");
  }
  must(*connection_, "INSERT INTO t VALUES(5)");
  EXPECT_EQ(gate_.foreign.size(), 1u);
  EXPECT_EQ(gate_.foreign_unknown, 0);
  EXPECT_EQ(number(*connection_, "SELECT count(*) FROM t"), 8);
  EXPECT_TRUE(gate_.broken_with.empty());
}

TEST_F(CaptureTest, ForeignCommitBetweenOurReadAndOurWriteIsReportedOnce) {
  open();
  must(*connection_, "INSERT INTO t VALUES(1)");
  Connection foreign = stock();
  must(*connection_, "BEGIN");
  EXPECT_EQ(number(*connection_, "SELECT count(*) FROM t"), 1);
  must(foreign, "INSERT INTO t VALUES(2)");
  EXPECT_EQ(code_of(*connection_, "INSERT INTO t VALUES(3)"), SQLITE_BUSY_SNAPSHOT);
  must(*connection_, "ROLLBACK; INSERT INTO t VALUES(3)");
  EXPECT_EQ(gate_.foreign.size(), 1u);
  EXPECT_EQ(gate_.foreign_calls, 1);
}

// --- snapshots and checkpoints

TEST_F(CaptureTest, SnapshotPointOfAFreshDatabaseIsZero) {
  Connection connection = open_hosted(path_);
  must(connection, "BEGIN");
  Result<WalPoint> point = snapshot_point(connection);
  ASSERT_TRUE(point) << point.error().message();
  EXPECT_EQ(*point, WalPoint{});
  must(connection, "COMMIT");
  EXPECT_FALSE(snapshot_point(connection));  // no transaction
  must(connection, "BEGIN IMMEDIATE");
  EXPECT_FALSE(snapshot_point(connection));  // a write transaction
}

TEST_F(CaptureTest, SnapshotPointIsThatOfTheCommitSeen) {
  open();
  Connection reader = open_connection(path_, "offprint");
  for (int i = 0; i < 10; ++i) {
    must(*connection_, "INSERT INTO t VALUES(1)");
    EXPECT_EQ(point_of(reader), gate_.commits.back().point);
    if (i % 3 == 0) {
      ASSERT_TRUE(checkpoint(*connection_, SQLITE_CHECKPOINT_PASSIVE));
      EXPECT_EQ(point_of(reader), gate_.commits.back().point);
    }
  }
  ASSERT_TRUE(checkpoint(*connection_, SQLITE_CHECKPOINT_TRUNCATE));
  WalPoint restarted = point_of(reader);
  EXPECT_EQ(restarted.frame, 0u);
  EXPECT_FALSE(restarted.same_generation(gate_.commits.back().point));
  must(*connection_, "INSERT INTO t VALUES(1)");
  EXPECT_TRUE(restarted.same_generation(gate_.commits.back().point));
}

TEST_F(CaptureTest, CheckpointTellsHowFarItCame) {
  open();
  Connection reader = stock();
  must(*connection_, "INSERT INTO t VALUES(1)");
  must(reader, "BEGIN");
  number(reader, "SELECT count(*) FROM t");
  must(*connection_, "INSERT INTO t VALUES(2)");
  Result<CheckpointResult> partial = checkpoint(*connection_, SQLITE_CHECKPOINT_PASSIVE);
  ASSERT_TRUE(partial);
  EXPECT_TRUE(partial->busy);
  EXPECT_LT(partial->done_frames, partial->wal_frames);
  must(reader, "COMMIT");
  Result<CheckpointResult> whole = checkpoint(*connection_, SQLITE_CHECKPOINT_PASSIVE);
  ASSERT_TRUE(whole);
  EXPECT_FALSE(whole->busy);
  EXPECT_EQ(whole->done_frames, whole->wal_frames);
  EXPECT_GT(whole->wal_frames, 0u);
}

}  // namespace
}  // namespace offprint::sqlite::testing
