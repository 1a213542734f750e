#include "archive/database_archive.h"

#include <algorithm>
#include <filesystem>
#include <random>

#include "archive/archive_testing.h"
#include "base/fault_file_system.h"

namespace offprint::archive::testing {
namespace {

using namespace std::chrono_literals;

class DatabaseArchiveTest : public ArchiveTest {
 protected:
  void SetUp() override {
    ArchiveTest::SetUp();
    create("orders");
    write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  }
  std::size_t count(int level) {
    return static_cast<std::size_t>(
        std::ranges::count(files("orders"), level, &ArchivedFile::level));
  }
  void put(const std::string& value) {
    write("orders", "INSERT INTO t(b) VALUES('" + value + "')");
    ASSERT_TRUE(archive_->put_transactions());
  }

  // Where a history goes that ends at a transaction.
  std::string dropped(const std::string& database, TxId reached) {
    return fmt::format("_offprint/dropped/{}@{}-{:016x}", database,
                       store_->position(name(database))->lineage.text(), reached.value);
  }
  // Writes until the transaction after that one has left the log.
  void lose_log_after(TxId txid) {
    Bookmark at{{}, txid, store_->position(name("orders"))->lineage};
    for (int i = 0; i < 300 && store_->log_after(name("orders"), at, 1); ++i)
      write("orders", "INSERT OR REPLACE INTO t VALUES(1, randomblob(400000))");
    ASSERT_FALSE(store_->log_after(name("orders"), at, 1));
  }

  std::unique_ptr<DatabaseArchive> archive_;
};

TEST_F(DatabaseArchiveTest, WhatCameSinceIsOneFile) {
  archive_ = load("orders").value();
  EXPECT_EQ(archive_->reached().value, 0u);
  for (int i = 0; i < 5; ++i) write("orders", "INSERT INTO t(b) VALUES(zeroblob(10))");
  ASSERT_TRUE(archive_->put_transactions());
  EXPECT_EQ(archive_->reached().value, 6u);
  EXPECT_EQ(files("orders").size(), 1u);
  std::uint64_t puts = archive_->counters().puts;
  ASSERT_TRUE(archive_->put_transactions());
  EXPECT_EQ(archive_->counters().puts, puts) << "nothing came";
  Content newest = restore("orders");
  ASSERT_TRUE(newest.restored) << newest.restored.error().message();
  EXPECT_EQ(newest.text, model("orders", TxId{6}));
  EXPECT_TRUE(newest.restored->proven);
  EXPECT_EQ(newest.restored->checksum, store_->position(name("orders"))->checksum);
}

TEST_F(DatabaseArchiveTest, WindowsAreCompactedAndOldFilesGo) {
  archive_ = load("orders").value();
  for (int i = 0; i < 40; ++i) {
    put("x");
    pass(1s);
  }
  ASSERT_TRUE(archive_->keep_up(now_ms_));
  EXPECT_EQ(count(0), 40u);
  EXPECT_EQ(count(1), 1u);
  pass(10min);
  ASSERT_TRUE(archive_->keep_up(now_ms_));
  EXPECT_EQ(count(0), 0u) << "covered, and older than five minutes";
  EXPECT_EQ(restore("orders").text, model("orders", TxId{41}));
  for (int i = 0; i < 90; ++i) {
    put("x");
    pass(20s);
    ASSERT_TRUE(archive_->keep_up(now_ms_));
  }
  EXPECT_GT(count(2), 1u);
  pass(2h);
  ASSERT_TRUE(archive_->keep_up(now_ms_));
  EXPECT_GE(count(3), 1u);
  EXPECT_EQ(restore("orders").text, model("orders", TxId{131}));
  EXPECT_EQ(archive_->due_ms().value_or(0) / 86'400'000, now_ms_ / 86'400'000 + 1)
      << "nothing but the day's snapshot is left to do";
  pass(24h);
  ASSERT_TRUE(archive_->keep_up(now_ms_));
  EXPECT_EQ(count(kSnapshotLevel), 1u);
  EXPECT_FALSE(archive_->due_ms());
}

// The day's snapshot may be newer than what was put singly: that follows all the same.
// Killed between a snapshot and what it was ahead of.
TEST_F(DatabaseArchiveTest, WhatASnapshotWasAheadOfStillFollows) {
  schedule_.sync = 0ms;
  archive_ = load("orders").value();
  put("x");
  write("orders", "INSERT INTO t(b) VALUES('not put')");
  write("orders", "INSERT INTO t(b) VALUES('nor this')");
  pass(25h);
  ASSERT_TRUE(archive_->keep_up(now_ms_));
  ASSERT_EQ(count(kSnapshotLevel), 1u);
  archive_ = load("orders").value();
  ASSERT_TRUE(archive_->put_transactions());
  for (std::uint64_t txid = 2; txid <= 4; ++txid) {
    Content moment = restore("orders", TxId{txid});
    ASSERT_TRUE(moment.restored) << moment.restored.error().message();
    EXPECT_EQ(moment.text, model("orders", TxId{txid}));
  }
}

TEST_F(DatabaseArchiveTest, ASnapshotBesideCommitsLeavesNoneOut) {
  schedule_.sync = 0ms;
  archive_ = load("orders").value();
  put("one");
  pass(25h);
  for (int i = 0; i < 3; ++i) write("orders", "INSERT INTO t(b) VALUES('beside')");
  ASSERT_TRUE(archive_->keep_up(now_ms_));
  ASSERT_EQ(count(kSnapshotLevel), 1u);
  ASSERT_TRUE(archive_->put_transactions());
  ASSERT_TRUE(archive_->note_head());
  for (std::uint64_t txid = 2; txid <= 5; ++txid) {  // the first one is compacted by now
    Content then = restore("orders", TxId{txid});
    ASSERT_TRUE(then.restored) << then.restored.error().message();
    EXPECT_EQ(then.text, model("orders", TxId{txid}));
  }
}

TEST_F(DatabaseArchiveTest, MomentsOfTheRetentionTimeStay) {
  schedule_.retention = 10 * 24h;
  archive_ = load("orders").value();
  for (int day = 0; day < 30; ++day) {
    put(std::string(static_cast<std::size_t>(day), 'x'));
    pass(24h);
    ASSERT_TRUE(archive_->keep_up(now_ms_));
    ASSERT_TRUE(archive_->note_head());
  }
  EXPECT_LE(count(kSnapshotLevel), 12u);
  for (const auto& [txid, at] : at_ms_["orders"]) {
    Content then = restore("orders", AtTime{at});
    if (at >= now_ms_ - schedule_.retention.count()) {
      ASSERT_TRUE(then.restored) << txid.value << ": " << then.restored.error().message();
    }
    if (then.restored) EXPECT_EQ(then.text, model("orders", txid));
  }
}

TEST_F(DatabaseArchiveTest, GoesOnAfterARestartAndAfterAGap) {
  archive_ = load("orders").value();
  put("one");
  archive_.reset();
  open();
  archive_ = load("orders").value();
  EXPECT_EQ(archive_->reached().value, 2u);
  put("two");
  EXPECT_EQ(files("orders").size(), 2u);
  archive_.reset();
  options_.log_bytes_max = 1;
  open();
  archive_ = load("orders").value();
  lose_log_after(TxId{3});
  ASSERT_TRUE(archive_->put_transactions());
  EXPECT_EQ(count(kSnapshotLevel), 1u);
  put("after");
  ASSERT_TRUE(archive_->note_head());
  EXPECT_EQ(restore("orders").text, model("orders", archive_->reached()));
  EXPECT_EQ(restore("orders", TxId{3}).text, model("orders", TxId{3}));
  pass(2h);
  ASSERT_TRUE(archive_->keep_up(now_ms_));
  EXPECT_EQ(restore("orders").text, model("orders", archive_->reached()));
}

// What it goes on from is proven, or another history begins.
TEST_F(DatabaseArchiveTest, AHistoryThatCannotBeProvenEnds) {
  archive_ = load("orders").value();
  put("one");
  ASSERT_TRUE(archive_->note_head());
  archive_.reset();
  options_.log_bytes_max = 1;
  open();
  lose_log_after(TxId{2});
  archive_ = load("orders").value();
  EXPECT_EQ(archive_->reached().value, 0u);
  ASSERT_TRUE(archive_->put_transactions());
  ASSERT_TRUE(archive_->note_head());
  EXPECT_EQ(restore("orders").text, model("orders", archive_->reached()));
  EXPECT_EQ(restore(dropped("orders", TxId{2})).text, model("orders", TxId{2}));
}

// The history was removed or damaged: the database says what it was, where the log goes so far
// back.
TEST_F(DatabaseArchiveTest, AHistoryThatWasLostIsWrittenAnew) {
  const std::string key = std::string("orders/") + kHistoryKey;
  for (bool is_gone : {true, false}) {
    archive_ = load("orders").value();
    put(is_gone ? "one" : "two");
    put("more");
    ASSERT_TRUE(archive_->note_head());
    const TxId reached = archive_->reached();
    if (is_gone) {
      ASSERT_TRUE(objects_->remove({key}));
    } else {
      Bytes damaged = read_object(*objects_, key, kHistoryBytesMax).value();
      damaged[damaged.size() / 2] ^= 1;
      ltx::BytesSource source(damaged);
      ASSERT_TRUE(objects_->put(key, source));
    }
    auto loaded = load("orders");
    ASSERT_TRUE(loaded) << loaded.error().message();
    archive_ = std::move(*loaded);
    EXPECT_EQ(archive_->reached(), reached) << "it goes on";
    const Position ours = store_->position(name("orders")).value();
    EXPECT_EQ(restore("orders", ours.bookmark()).text, model("orders", reached));
    EXPECT_EQ(restore("orders", TxId{2}).text, model("orders", TxId{2}));
    put("then");
    EXPECT_EQ(restore("orders").text, model("orders", reached.next()));
    EXPECT_TRUE(restore("orders").restored->bookmark);
  }
  EXPECT_TRUE(objects_->info("orders/offprint/damaged/history"));
}

// Somebody removed the folder while the server ran.
TEST_F(DatabaseArchiveTest, ARemovedArchiveBeginsAgain) {
  archive_ = load("orders").value();
  put("one");
  std::filesystem::remove_all(folder_.path() + "/archive");
  put("two");
  archive_ = load("orders").value();
  ASSERT_TRUE(archive_->put_transactions());
  ASSERT_TRUE(archive_->note_head());
  EXPECT_EQ(restore("orders").text, model("orders", TxId{3}));
}

// Each needs those before it in its window, also when these are too old to be kept for themselves.
TEST_F(DatabaseArchiveTest, YoungMomentsStayWhileTheirWindowGrowsOld) {
  archive_ = load("orders").value();
  int looked_at = 0;
  for (int i = 0; i < 70; ++i) {
    put("x");
    pass(7s);
    ASSERT_TRUE(archive_->keep_up(now_ms_));
    for (const auto& [txid, at] : at_ms_["orders"]) {
      const std::int64_t age = now_ms_ - at;
      if (txid.value == 1 || age < 260'000 || age >= 300'000) continue;
      Content then = restore("orders", txid);
      ASSERT_TRUE(then.restored) << txid.value << ", " << age / 1000
                                 << " s old: " << then.restored.error().message();
      ASSERT_EQ(then.text, model("orders", txid));
      ++looked_at;
    }
  }
  EXPECT_GT(looked_at, 100);
  EXPECT_LT(count(0), 60u);  // the others are gone
}

// Rare writes: each window keeps its last moment until its time is over.
TEST_F(DatabaseArchiveTest, RareMomentsStay) {
  archive_ = load("orders").value();
  for (auto pause : {45s, 400s, 7200s}) {
    for (int i = 0; i < 30; ++i) {
      put("x");
      pass(pause);
      ASSERT_TRUE(archive_->keep_up(now_ms_));
      for (const auto& [txid, at] : at_ms_["orders"]) {
        std::int64_t age = now_ms_ - at;
        auto window = age < 300'000       ? 1
                      : age < 86'400'000  ? 30'000
                      : age < 604'800'000 ? 300'000
                                          : 3'600'000;
        auto next = model_["orders"].upper_bound(txid);
        bool is_last =
            next == model_["orders"].end() || at_ms_["orders"][next->first] / window != at / window;
        if (!is_last || (i % 7 != 0 && age > 3'600'000)) continue;
        Content then = restore("orders", txid);
        ASSERT_TRUE(then.restored)
            << txid.value << ", " << age / 1000 << " s old: " << then.restored.error().message();
        ASSERT_EQ(then.text, model("orders", txid));
      }
    }
  }
}

// Also when it stops half-way.
TEST_F(DatabaseArchiveTest, AHistoryMakesRoomForTheNextDatabaseOfItsName) {
  FaultFileSystem disk;
  disk.put("archive/.keep", {});
  auto reopen = [&] { objects_ = open_object_store("file:///archive", disk).value(); };
  reopen();
  archive_ = load("orders").value();
  for (int i = 0; i < 5; ++i) put("first life");
  ASSERT_TRUE(archive_->note_head());
  std::string place = dropped("orders", TxId{6});
  std::string before = model("orders", TxId{6});
  archive_.reset();
  ASSERT_TRUE(store_->drop(name("orders")));
  create("orders");
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  for (std::uint64_t stop = 0;; stop += 3) {
    disk.crash_at(disk.call_count() + stop, stop);
    auto loaded = load("orders");
    disk.crash_at(UINT64_MAX, {});
    if (loaded) {
      archive_ = std::move(*loaded);
      break;
    }
    disk.restart();
    reopen();
  }
  put("second life");
  EXPECT_EQ(restore("orders").text, model("orders", TxId{2}));
  EXPECT_EQ(files("orders").size(), 1u);
  EXPECT_EQ(restore(place).text, before);
}

TEST_F(DatabaseArchiveTest, FilesOfAnotherProgramAreLeftAlone) {
  archive_ = load("orders").value();
  put("one");
  // As Litestream writes it: without our checksum.
  std::string key = files("orders").front().key;
  ltx::DecodedFile file = ltx::decode(read_object(*objects_, key, 1 << 20).value()).value();
  file.header.node_id = 0;
  Bytes bytes;
  ltx::BytesSink sink(bytes);
  ltx::Encoder encoder(sink);
  ASSERT_TRUE(encoder.begin(file.header));
  for (const auto& [page, image] : file.pages) ASSERT_TRUE(encoder.page(page, image));
  ASSERT_TRUE(encoder.finish({}));
  ASSERT_TRUE(objects_->remove({key, std::string("orders/") + kHistoryKey}));
  ltx::BytesSource source(bytes);
  ASSERT_TRUE(objects_->put(key, source));
  EXPECT_EQ(load("orders").error().code(), Code::kConflict);
  EXPECT_EQ(restore("orders").text, model("orders", TxId{2}));
}

// Two writers: the one that comes second finds the name taken by other content.
TEST_F(DatabaseArchiveTest, AFileOfAnotherWriterIsNotReplaced) {
  archive_ = load("orders").value();
  put("one");
  std::string key = "orders/" + objects_->level_prefix(0) + ltx::file_name(TxId{3}, TxId{3});
  ltx::BytesSource foreign(as_bytes("something else"));
  ASSERT_TRUE(objects_->put(key, foreign));
  write("orders", "INSERT INTO t(b) VALUES('two')");
  EXPECT_EQ(archive_->put_transactions().error().code(), Code::kConflict);
}

// Random work on a disk that stops at any moment: whatever was archived can be restored.
TEST_F(DatabaseArchiveTest, RandomWorkIsRestorableWhereverItStops) {
  FaultFileSystem disk;
  disk.put("archive/.keep", {});
  auto reopen = [&] { objects_ = open_object_store("file:///archive", disk).value(); };
  reopen();
  std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937_64 dice(seed);
  schedule_.retention = 48h;
  TxId archived;
  for (int round = 0; round < 150; ++round) {
    if (!archive_) {
      auto loaded = load("orders");
      ASSERT_TRUE(loaded) << loaded.error().message();
      archive_ = std::move(*loaded);
      EXPECT_GE(archive_->reached(), archived) << "what was put is there";
    }
    if (dice() % 2 == 0) disk.crash_at(disk.call_count() + dice() % 120, dice());
    for (std::uint64_t i = dice() % 4; i > 0; --i) {
      switch (dice() % 6) {
        case 0:
          write("orders", fmt::format("DELETE FROM t WHERE a % 3 = {}", dice() % 3));
          break;
        case 1:
          write("orders", "VACUUM");
          break;
        default:
          write("orders", fmt::format("INSERT INTO t(b) VALUES(randomblob({}))", dice() % 20'000));
      }
    }
    Result<> done = archive_->put_transactions();
    if (done) archived = archive_->reached();
    constexpr std::chrono::milliseconds kPauses[] = {0s, 1s, 40s, 7min, 2h, 25h};
    pass(kPauses[dice() % 6]);
    if (done) done = archive_->keep_up(now_ms_);
    if (!done) {  // the machine stopped, or a file of an answer that got lost
      archive_.reset();
      disk.restart();
      reopen();
      continue;
    }
    disk.crash_at(UINT64_MAX, {});
    Content newest = restore("orders");
    if (archived.value == 0) continue;
    ASSERT_TRUE(newest.restored) << newest.restored.error().message();
    EXPECT_TRUE(newest.restored->proven);
    EXPECT_EQ(newest.restored->txid, archived);
    EXPECT_EQ(newest.text, model("orders", archived));
    Chain chain(files("orders"));
    TxId some = chain.restorable()[dice() % chain.restorable().size()];
    Content then = restore("orders", some);
    ASSERT_TRUE(then.restored) << some.value << ": " << then.restored.error().message();
    EXPECT_EQ(then.text, model("orders", some));
  }
}

}  // namespace
}  // namespace offprint::archive::testing
