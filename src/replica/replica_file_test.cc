#include "replica/replica_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "replica/replica_testing.h"

namespace offprint::replica {
namespace {

using sqlite::Connection;
using sqlite::testing::content_hash;
using sqlite::testing::open_plain;
using testing::LtxPrimary;
using testing::SentState;
using testing::SentTransaction;
using testing::TemporaryFolder;

std::unique_ptr<ReplicaFile> open_replica(const std::string& path, int busy_timeout_ms = 2000) {
  ReplicaFile::Options options;
  options.source = "http://127.0.0.1:1/db/test";
  options.busy_timeout_ms = busy_timeout_ms;
  auto replica = ReplicaFile::open(path, options);
  EXPECT_TRUE(replica) << replica.error().message();
  return replica ? *std::move(replica) : nullptr;
}

#define ASSERT_DONE(expression)                    \
  do {                                             \
    auto done_ = (expression);                     \
    ASSERT_TRUE(done_) << done_.error().message(); \
  } while (false)

// A primary with tables and rows, a replica of it, and a reader.
class ReplicaFileTest : public ::testing::Test {
 protected:
  void start(const sqlite::testing::RandomPrimary::Options& options) {
    primary_ = std::make_unique<LtxPrimary>(folder_ / "primary.db", options);
    primary_->primary().make_tables();
    primary_->capture();
    replica_ = open_replica(path_);
    ASSERT_TRUE(replica_);
    ASSERT_TRUE(replica_->absent());
    ASSERT_DONE(testing::send_snapshot(*replica_, primary_->state(), nullptr));
    reader_.emplace(open_plain(path_));
  }
  void expect_equal() {
    EXPECT_EQ(replica_->position(), primary_->position());
    EXPECT_EQ(content_hash(*reader_), content_hash(primary_->db()));
    auto verified = replica_->verify();
    ASSERT_TRUE(verified) << verified.error().message();
    EXPECT_TRUE(*verified) << replica_->doubt();
  }
  void reopen() {
    replica_.reset();
    replica_ = open_replica(path_);
    ASSERT_TRUE(replica_);
  }

  TemporaryFolder folder_;
  std::string path_ = folder_ / "copy.db";
  std::unique_ptr<LtxPrimary> primary_;
  std::unique_ptr<ReplicaFile> replica_;
  std::optional<Connection> reader_;
};

TEST_F(ReplicaFileTest, FollowsRandomTransactionsInBatches) {
  start({.page_size = 1024, .seed = 11, .auto_vacuum = 1, .cookie_jumps = true});
  for (int i = 0; i < 120; ++i) {
    std::vector<SentTransaction> sent;
    for (std::size_t n = 1 + primary_->primary().below(6); n > 0; --n)
      sent.push_back(primary_->random_transaction());
    ASSERT_DONE(testing::apply(*replica_, sent, 0, sent.size()));
    if (i % 7 == 0) ASSERT_DONE(replica_->checkpoint(i % 2 == 0));
    if (i % 10 == 9) {
      reopen();
      ASSERT_EQ(replica_->position(), primary_->position()) << replica_->doubt();
    }
    ASSERT_EQ(content_hash(*reader_), sent.back().content_hash) << "batch " << i;
  }
  expect_equal();
}

TEST_F(ReplicaFileTest, AnEmptyDatabaseGetsItsFirstTransaction) {
  primary_ = std::make_unique<LtxPrimary>(
      folder_ / "primary.db", sqlite::testing::RandomPrimary::Options{.page_size = 8192});
  replica_ = open_replica(path_);
  SentState empty;
  empty.position = primary_->position();
  empty.page_size = 8192;
  ASSERT_DONE(testing::send_snapshot(*replica_, empty, nullptr));
  reopen();
  ASSERT_EQ(replica_->position(), empty.position) << replica_->doubt();
  reader_.emplace(open_plain(path_));
  EXPECT_EQ(*reader_->query_int("SELECT count(*) FROM sqlite_schema"), 0);
  primary_->primary().make_tables();
  ASSERT_DONE(testing::apply(*replica_, primary_->capture()));
  for (int i = 0; i < 20; ++i)
    ASSERT_DONE(testing::apply(*replica_, primary_->random_transaction()));
  expect_equal();
  reopen();
  expect_equal();
}

TEST_F(ReplicaFileTest, NobodySeesTheFileBeforeItIsWhole) {
  primary_ = std::make_unique<LtxPrimary>(folder_ / "primary.db",
                                          sqlite::testing::RandomPrimary::Options{});
  primary_->primary().make_tables();
  primary_->capture();
  SentState state = primary_->state();
  replica_ = open_replica(path_);
  ASSERT_DONE(
      replica_->begin_snapshot({state.position, state.page_size, state.page_count, 0, false}));
  for (const auto& [page, image] : state.pages) {
    if (page != state.page_count) ASSERT_DONE(replica_->put_snapshot_page(page, image));
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
  Result<> lacking = replica_->finish_snapshot();
  ASSERT_FALSE(lacking);
  EXPECT_EQ(lacking.error().code(), Code::kCorrupt);
  EXPECT_FALSE(std::filesystem::exists(path_));
  // A page that is not what the primary has.
  state.pages[2][100] ^= 1;
  EXPECT_EQ(testing::send_snapshot(*replica_, state, nullptr).error().code(), Code::kCorrupt);
  EXPECT_FALSE(std::filesystem::exists(path_));
  // Cut off, and taken up by the next start.
  ASSERT_DONE(
      replica_->begin_snapshot({state.position, state.page_size, state.page_count, 0, false}));
  reopen();
  EXPECT_TRUE(replica_->absent());
  ASSERT_DONE(testing::send_snapshot(*replica_, primary_->state(), nullptr));
  reader_.emplace(open_plain(path_));
  expect_equal();
}

TEST_F(ReplicaFileTest, RefusesFilesOfOthers) {
  std::ofstream(path_) << "some text that is no database";
  ReplicaFile::Options options;
  auto refused = ReplicaFile::open(path_, options);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kForbidden);
  std::filesystem::remove(path_);
  {
    Connection other = open_plain(path_);
    sqlite::testing::must(other, "CREATE TABLE mine(a)");
  }
  refused = ReplicaFile::open(path_, options);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kForbidden) << refused.error().message();
  // Another page size than the note's: somebody put another database there.
  std::filesystem::remove(path_);
  start({.page_size = 1024});
  replica_.reset();
  reader_.reset();
  std::filesystem::remove(path_);
  {
    Connection other = open_plain(path_);
    sqlite::testing::must(other, "CREATE TABLE mine(a)");
  }
  refused = ReplicaFile::open(path_, options);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kForbidden) << refused.error().message();
}

TEST_F(ReplicaFileTest, TakesABlankFileThatAReaderMade) {
  Connection early = open_plain(path_);
  EXPECT_EQ(*early.query_int("SELECT count(*) FROM sqlite_schema"), 0);
  ASSERT_TRUE(std::filesystem::exists(path_));
  primary_ = std::make_unique<LtxPrimary>(
      folder_ / "primary.db", sqlite::testing::RandomPrimary::Options{.page_size = 2048});
  primary_->primary().make_tables();
  primary_->capture();
  replica_ = open_replica(path_);
  ASSERT_DONE(testing::send_snapshot(*replica_, primary_->state(), nullptr));
  for (int i = 0; i < 10; ++i)
    ASSERT_DONE(testing::apply(*replica_, primary_->random_transaction()));
  EXPECT_EQ(content_hash(early), content_hash(primary_->db()));
  reader_.emplace(open_plain(path_));
  reopen();
  expect_equal();
}

TEST_F(ReplicaFileTest, ARemovedFileIsMadeAnewWithoutItsOldWal) {
  start({});
  ASSERT_DONE(testing::apply(*replica_, primary_->random_transaction()));
  // A kill: -wal stays; then the user removes FILE alone.
  std::filesystem::copy_file(path_ + "-wal", folder_ / "wal");
  replica_.reset();
  reader_.reset();
  std::filesystem::remove(path_);
  std::filesystem::copy_file(folder_ / "wal", path_ + "-wal");
  replica_ = open_replica(path_);
  EXPECT_TRUE(replica_->absent());
  EXPECT_FALSE(replica_->position());
  primary_->random_transaction();
  ASSERT_DONE(testing::send_snapshot(*replica_, primary_->state(), nullptr));
  reader_.emplace(open_plain(path_));
  expect_equal();
}

TEST_F(ReplicaFileTest, ResyncSendsOnlyDifferences) {
  start({.page_size = 1024});
  ASSERT_DONE(testing::apply(*replica_, primary_->random_transaction()));
  for (int i = 0; i < 10; ++i) primary_->random_transaction();
  SentState state = primary_->state();
  auto hashes = replica_->page_hashes();
  ASSERT_TRUE(hashes);
  std::size_t same = 0;
  for (const auto& [page, image] : state.pages) {
    same += page <= hashes->hashes.size() &&
            hashes->hashes[page - 1] == ltx::page_checksum(page, image).value;
  }
  EXPECT_GT(same, 0u);
  ASSERT_DONE(testing::send_snapshot(*replica_, state, &*hashes));
  expect_equal();
  // The same once more: nothing differs, nothing is written, the position stays.
  std::uint32_t cookie = static_cast<std::uint32_t>(*reader_->query_int("PRAGMA schema_version"));
  ASSERT_DONE(testing::resync(*replica_, primary_->state()));
  EXPECT_EQ(*reader_->query_int("PRAGMA schema_version"), cookie);
  expect_equal();
}

TEST_F(ReplicaFileTest, DifferencesThatDoNotFitAreRefused) {
  start({.page_size = 1024});
  SentTransaction next = primary_->random_transaction();
  std::uint64_t before = content_hash(*reader_);
  SentState state = primary_->state();
  state.position.checksum.value ^= 4;
  auto hashes = replica_->page_hashes();
  EXPECT_EQ(testing::send_snapshot(*replica_, state, &*hashes).error().code(), Code::kConflict);
  EXPECT_EQ(content_hash(*reader_), before);
  EXPECT_FALSE(replica_->position());
  EXPECT_FALSE(replica_->begin_snapshot({state.position, 1024, 1, 0, true}))
      << "differences without hashes";
  // The kill before any other apply: still not known, or as before.
  reopen();
  ASSERT_DONE(testing::resync(*replica_, primary_->state()));
  expect_equal();
}

// A reader with cached statements meets another lineage with the same cookie and its columns
// swapped.
TEST_F(ReplicaFileTest, CachedStatementsSeeRightColumnsAfterAResync) {
  auto make = [&](const char* name, const char* columns, const char* rows) {
    auto primary =
        std::make_unique<LtxPrimary>(folder_ / name, sqlite::testing::RandomPrimary::Options{});
    sqlite::testing::must(primary->db(),
                          std::string("CREATE TABLE t(") + columns + "); INSERT INTO t" + rows);
    primary->capture();
    return primary;
  };
  auto first = make("a.db", "a,b", "(a,b) VALUES('a1','b1')");
  auto second = make("b.db", "b,a", "(a,b) VALUES('a2','b2')");
  ASSERT_EQ(*first->db().query_int("PRAGMA schema_version"),
            *second->db().query_int("PRAGMA schema_version"));
  replica_ = open_replica(path_);
  ASSERT_DONE(testing::send_snapshot(*replica_, first->state(), nullptr));
  reader_.emplace(open_plain(path_));
  auto cached = reader_->prepare("SELECT a,b FROM t");
  ASSERT_TRUE(cached);
  auto read = [&] {
    EXPECT_TRUE(*cached->step());
    std::string row(cached->column_text(0));
    row += cached->column_text(1);
    cached->reset();
    return row;
  };
  EXPECT_EQ(read(), "a1b1");
  for (int i = 0; i < 3; ++i) {
    ASSERT_DONE(testing::resync(*replica_, second->state()));
    EXPECT_EQ(read(), "a2b2");
    reopen();
    ASSERT_DONE(testing::resync(*replica_, first->state()));
    EXPECT_EQ(read(), "a1b1");
  }
  // Within a lineage: the cookie goes back to one that was shown, with other columns behind it.
  sqlite::testing::must(first->db(),
                        "ALTER TABLE t RENAME COLUMN a TO c; ALTER TABLE t RENAME COLUMN b TO a;"
                        "ALTER TABLE t RENAME COLUMN c TO b");
  ASSERT_DONE(testing::apply(*replica_, first->capture()));
  EXPECT_EQ(read(), "b1a1");
  sqlite::testing::must(first->db(), "PRAGMA schema_version=1");
  ASSERT_DONE(testing::apply(*replica_, first->capture()));
  sqlite::testing::must(first->db(),
                        "PRAGMA schema_version=3; ALTER TABLE t RENAME COLUMN a TO c;"
                        "ALTER TABLE t RENAME COLUMN b TO a; ALTER TABLE t RENAME COLUMN c TO b;"
                        "PRAGMA schema_version=4");
  ASSERT_DONE(testing::apply(*replica_, first->capture()));
  EXPECT_EQ(read(), "a1b1");
}

TEST_F(ReplicaFileTest, AnotherPageSizeOrEncodingGetsANewFile) {
  start({.page_size = 1024});
  for (auto [page_size, encoding] :
       {std::pair{4096u, "UTF-8"}, std::pair{4096u, "UTF-16le"}, std::pair{512u, "UTF-8"}}) {
    reader_.reset();
    std::string name = folder_ / (std::to_string(page_size) + encoding);
    primary_ = std::make_unique<LtxPrimary>(
        name,
        sqlite::testing::RandomPrimary::Options{.page_size = page_size, .encoding = encoding});
    primary_->primary().make_tables();
    primary_->capture();
    ASSERT_DONE(testing::resync(*replica_, primary_->state()));
    reader_.emplace(open_plain(path_));
    expect_equal();
    ASSERT_DONE(testing::apply(*replica_, primary_->random_transaction()));
    reopen();
    expect_equal();
  }
  EXPECT_FALSE(std::filesystem::exists(path_ + "-offprint-new"));
}

TEST_F(ReplicaFileTest, AForeignWriteIsFoundByVerify) {
  start({});
  {
    Connection foreign = open_plain(path_);
    sqlite::testing::must(foreign, "INSERT INTO w VALUES('foreign','write')");
  }
  auto verified = replica_->verify();
  ASSERT_TRUE(verified);
  EXPECT_FALSE(*verified);
  EXPECT_FALSE(replica_->position());
  ASSERT_DONE(testing::resync(*replica_, primary_->state()));
  expect_equal();
}

TEST_F(ReplicaFileTest, AForeignWriteToAChangedPageStopsTheApply) {
  start({});
  {
    Connection foreign = open_plain(path_);
    sqlite::testing::must(foreign, "INSERT INTO w VALUES('foreign','write')");
  }
  sqlite::testing::must(primary_->db(), "INSERT INTO w VALUES('k','v')");
  EXPECT_EQ(testing::apply(*replica_, primary_->capture()).error().code(), Code::kConflict);
  EXPECT_FALSE(replica_->position());
  ASSERT_DONE(testing::resync(*replica_, primary_->state()));
  expect_equal();
}

TEST_F(ReplicaFileTest, TransactionsMustFollowOnEachOther) {
  start({});
  SentTransaction first = primary_->random_transaction();
  SentTransaction second = primary_->random_transaction();
  TransactionBatch batch(*replica_->position(), replica_->page_size());
  EXPECT_EQ(batch.add(Epoch{1}, *ltx::decode(second.ltx)).error().code(), Code::kBehind);
  EXPECT_EQ(batch.add(Epoch{0}, *ltx::decode(first.ltx)).error().code(), Code::kBehind);
  Position other = *replica_->position();
  other.checksum.value ^= 2;
  TransactionBatch diverged(other, replica_->page_size());
  EXPECT_EQ(diverged.add(Epoch{1}, *ltx::decode(first.ltx)).error().code(), Code::kConflict);
  ASSERT_TRUE(batch.add(Epoch{1}, *ltx::decode(first.ltx)));
  ASSERT_TRUE(batch.add(Epoch{1}, *ltx::decode(second.ltx)));
  ASSERT_DONE(replica_->apply(batch));
  expect_equal();
}

TEST_F(ReplicaFileTest, ALargeTransactionComesFromASpool) {
  start({.page_size = 512});
  sqlite::testing::must(primary_->db(),
                        "INSERT INTO t(b) SELECT randomblob(3000) FROM (WITH RECURSIVE n(i) AS "
                        "(VALUES(1) UNION ALL SELECT i+1 FROM n LIMIT 1000) SELECT i FROM n)");
  SentTransaction sent = primary_->capture();
  auto spool = Spool::create(FileSystem::real(), folder_ / "spool");
  ASSERT_TRUE(spool);
  for (std::size_t at = 0; at < sent.ltx.size(); at += 10'000) {
    ASSERT_DONE(spool->append(
        ByteView(sent.ltx).subspan(at, std::min<std::size_t>(10'000, sent.ltx.size() - at))));
  }
  auto pages = LtxPages::open(*std::move(spool));
  ASSERT_TRUE(pages) << pages.error().message();
  ASSERT_DONE(replica_->apply(sent.position.epoch, **pages));
  expect_equal();
}

TEST_F(ReplicaFileTest, ACheckpointWaitsForAReaderAndSaysSo) {
  start({.page_size = 1024});
  sqlite::testing::must(*reader_, "BEGIN");
  ASSERT_EQ(*reader_->query_int("SELECT count(*) FROM t"), 0);
  for (int i = 0; i < 5; ++i)
    ASSERT_DONE(testing::apply(*replica_, primary_->random_transaction()));
  ASSERT_DONE(replica_->checkpoint(true));
  EXPECT_GT(replica_->pinned_bytes(), 0u);
  sqlite::testing::must(*reader_, "COMMIT");
  ASSERT_DONE(replica_->checkpoint(true));
  EXPECT_EQ(replica_->pinned_bytes(), 0u);
  expect_equal();
}

// The note of another boot is believed only after an orderly end.
TEST_F(ReplicaFileTest, AfterARestartOfTheMachineOnlyACleanNoteCounts) {
  start({.page_size = 1024});
  ASSERT_DONE(testing::apply(*replica_, primary_->random_transaction()));
  auto other_boot = [&] {
    replica_.reset();
    auto note = PositionFile::open(FileSystem::real(), path_ + "-offprint");
    ASSERT_TRUE(note);
    Note changed = (*note)->latest();
    changed.boot_id.fill(7);
    ASSERT_DONE((*note)->write_durably(changed));
    note->reset();
    replica_ = open_replica(path_);
  };
  other_boot();
  EXPECT_FALSE(replica_->position());
  EXPECT_FALSE(replica_->absent());
  ASSERT_DONE(testing::resync(*replica_, primary_->state()));
  expect_equal();
  ASSERT_DONE(replica_->close());
  other_boot();
  EXPECT_EQ(replica_->position(), primary_->position()) << replica_->doubt();
  expect_equal();
  // From its start on the mark does not count any more.
  ASSERT_DONE(testing::apply(*replica_, primary_->random_transaction()));
  other_boot();
  EXPECT_FALSE(replica_->position());
}

TEST_F(ReplicaFileTest, AFileCopiedWithoutItsWalIsNotBelieved) {
  start({});
  ASSERT_DONE(replica_->checkpoint(true));
  std::filesystem::copy_file(path_, folder_ / "old.db");
  for (int i = 0; i < 30; ++i)
    ASSERT_DONE(testing::apply(*replica_, primary_->random_transaction()));
  replica_.reset();
  reader_.reset();
  std::filesystem::copy_file(folder_ / "old.db", path_,
                             std::filesystem::copy_options::overwrite_existing);
  std::filesystem::remove(path_ + "-wal");
  replica_ = open_replica(path_);
  EXPECT_FALSE(replica_->position());
  EXPECT_NE(replica_->doubt(), "");
  ASSERT_DONE(testing::resync(*replica_, primary_->state()));
  reader_.emplace(open_plain(path_));
  expect_equal();
}

TEST_F(ReplicaFileTest, SaysWhoHoldsTheFile) {
  start({});
  {
    Connection writer = open_plain(path_);
    sqlite::testing::must(writer, "BEGIN IMMEDIATE");
    replica_ = nullptr;
    replica_ = open_replica(path_, 50);
    EXPECT_EQ(testing::apply(*replica_, primary_->random_transaction()).error().code(),
              Code::kBusy);
    sqlite::testing::must(writer, "COMMIT");
  }
  ReplicaFile::Options options;
  auto second = ReplicaFile::open(path_, options);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), Code::kBusy);
  EXPECT_TRUE(replica_->position()) << "busy is no divergence";
}

// A program turned FILE to rollback mode while the follower was down.
TEST_F(ReplicaFileTest, TheFileIsTurnedBackToWal) {
  start({});
  ASSERT_DONE(testing::apply(*replica_, primary_->random_transaction()));
  replica_.reset();
  EXPECT_EQ(*reader_->query_text("PRAGMA journal_mode=DELETE"), "delete");
  replica_ = open_replica(path_);
  ASSERT_EQ(replica_->position(), primary_->position()) << replica_->doubt();
  for (int i = 0; i < 5; ++i)
    ASSERT_DONE(testing::apply(*replica_, primary_->random_transaction()));
  EXPECT_EQ(*open_plain(path_).query_text("PRAGMA journal_mode"), "wal");
  expect_equal();
}

}  // namespace
}  // namespace offprint::replica
