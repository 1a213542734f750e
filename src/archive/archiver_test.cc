#include "archive/archiver.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "archive/archive_testing.h"
#include "base/fault_file_system.h"

namespace offprint::archive::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class ArchiverTest : public ArchiveTest {
 protected:
  void SetUp() override {
    ArchiveTest::SetUp();
    create("orders");
    archiver_options_.schedule.sync = 0ms;
    archiver_options_.wall_clock_ms = [this] { return now_ms_.load(); };
  }
  void TearDown() override {
    archiver_.reset();
    ArchiveTest::TearDown();
  }
  void start(const std::string& owner = "node") {
    archiver_ = std::make_unique<Archiver>(*objects_, *store_, owner, archiver_options_);
    ASSERT_TRUE(archiver_->start());
  }
  template <class Condition>
  static bool comes(Condition condition) {
    for (Deadline until = SteadyClock::now() + 20s; SteadyClock::now() < until;) {
      if (condition()) return true;
      std::this_thread::sleep_for(2ms);
    }
    return false;
  }
  bool is_archived(const std::string& database) {
    return archiver_->wait(name(database), SteadyClock::now() + 20s).has_value();
  }
  void expect_restores(const std::string& database) {
    ASSERT_TRUE(is_archived(database));
    Content newest = restore(database);
    ASSERT_TRUE(newest.restored) << newest.restored.error().message();
    EXPECT_EQ(newest.restored->txid, store_->position(name(database))->txid);
    EXPECT_EQ(newest.text, query(database, kContent));
    EXPECT_TRUE(newest.restored->proven);
  }

  std::atomic<bool> hangs_{false};
  FaultFileSystem disk_;
  ArchiverOptions archiver_options_;
  std::unique_ptr<Archiver> archiver_;
};

TEST_F(ArchiverTest, CommitsGoThereByThemselves) {
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");  // before it began
  start();
  expect_restores("orders");
  create("shop/orders");
  write("shop/orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  for (int i = 0; i < 50; ++i) {
    write(i % 3 == 0 ? "shop/orders" : "orders", "INSERT INTO t(b) VALUES(randomblob(100))");
    if (i % 10 == 0) expect_restores("orders");
  }
  expect_restores("orders");
  expect_restores("shop/orders");
  EXPECT_TRUE(comes([&] { return archiver_->status().behind == 0; }));
  EXPECT_EQ(archiver_->status().failures, 0u);
  EXPECT_GT(archiver_->status().bytes, 1000u);
}

TEST_F(ArchiverTest, TransactionsOfOneTimeAreOneFile) {
  archiver_options_.schedule.sync = 300ms;
  start();
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  for (int i = 0; i < 20; ++i) write("orders", "INSERT INTO t(b) VALUES(1)");
  expect_restores("orders");
  EXPECT_LE(files("orders").size(), 3u);
}

// An archive that is slower than its writers, or could not be reached.
TEST_F(ArchiverTest, OfManyThatWaitNotEachIsAFile) {
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  for (int i = 0; i < 250; ++i) write("orders", "INSERT INTO t(b) VALUES(1)");
  start();
  expect_restores("orders");
  EXPECT_LE(files("orders").size(), 5u);
  const std::size_t before = files("orders").size();
  for (int i = 0; i < 3; ++i) {
    write("orders", "INSERT INTO t(b) VALUES(2)");
    ASSERT_TRUE(is_archived("orders"));
  }
  EXPECT_EQ(files("orders").size(), before + 3);
}

TEST_F(ArchiverTest, WhatComesAfterAPauseGoesThereSoonAndTheRestOnceInItsInterval) {
  archiver_options_.schedule.sync = 3s;
  start();
  const auto begin = SteadyClock::now();
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  ASSERT_TRUE(archiver_->wait(name("orders"), begin + 20s));
  const auto first = SteadyClock::now();
  EXPECT_LT(first - begin, 2s);
  for (int i = 0; i < 5; ++i) write("orders", "INSERT INTO t(b) VALUES(1)");
  ASSERT_TRUE(archiver_->wait(name("orders"), first + 20s));
  EXPECT_GT(SteadyClock::now() - first, 1s);
  EXPECT_EQ(files("orders").size(), 2u);
}

TEST_F(ArchiverTest, AStopBringsTheRestThere) {
  archiver_options_.schedule.sync = 1h;
  start();
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  EXPECT_EQ(archiver_->status().behind, 2u) << "with the list of databases";
  archiver_->stop();
  objects_ = open_object_store(folder_url_).value();
  Content newest = restore("orders");
  ASSERT_TRUE(newest.restored) << newest.restored.error().message();
  EXPECT_EQ(newest.text, model("orders", TxId{1}));
  // How far it reaches is noted: what is missing is noticed.
  write("orders", "INSERT INTO t(b) VALUES(1)");
  objects_ = open_object_store(folder_url_).value();
  start();
  archiver_->stop();
  objects_ = open_object_store(folder_url_).value();
  ASSERT_EQ(files("orders").size(), 2u);
  ASSERT_TRUE(objects_->remove({files("orders").back().key}));
  Content missing = restore("orders");
  ASSERT_FALSE(missing.restored);
  EXPECT_EQ(missing.restored.error().code(), Code::kCorrupt);
}

TEST_F(ArchiverTest, TwoNodesDoNotWriteOneArchive) {
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  archiver_options_.lease_look_ms = 0;
  start("first");
  auto other_objects = open_object_store(folder_url_).value();
  Archiver second(*other_objects, *store_, "second", archiver_options_);
  Result<> refused = second.start();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kConflict);
  EXPECT_THAT(refused.error().message(), HasSubstr("first"));
  // Unless it is told that the first one is gone; which is not, and finds out.
  auto third_objects = open_object_store(folder_url_).value();
  archiver_options_.take_over = true;
  Archiver third(*third_objects, *store_, "third", archiver_options_);
  ASSERT_TRUE(third.start());
  write("orders", "INSERT INTO t(b) VALUES(1)");
  ASSERT_TRUE(third.wait(name("orders"), SteadyClock::now() + 20s));
  EXPECT_TRUE(comes([&] { return archiver_->status().error.find("third") != std::string::npos; }));
}

// A node that was killed goes on at once; its files copied to another machine do not.
TEST_F(ArchiverTest, ARestartedNodeGoesOnAndItsTwinDoesNot) {
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  Lease killed(*objects_, "n 1", {}, "", false, 0ms);
  ASSERT_TRUE(killed.hold());
  archiver_options_.former_owners = {"n 0", "n 1"};
  start("n 2");
  expect_restores("orders");
  EXPECT_EQ(killed.hold().error().code(), Code::kConflict) << "it wakes up";
  Lease twin(*objects_, "n 3", {"n 1"}, "", false, 0ms);
  EXPECT_EQ(twin.hold().error().code(), Code::kConflict);
}

// Dropped and made again before the first life was put, or while it is: the second one is there.
TEST_F(ArchiverTest, LivesOfOneNameDoNotMix) {
  start();
  for (int life = 0; life < 12; ++life) {
    write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    for (int i = 0; i < life % 5 * 3; ++i) write("orders", "INSERT INTO t(b) VALUES(1)");
    if (life % 3 == 0) expect_restores("orders");
    ASSERT_TRUE(store_->drop(name("orders")));
    create("orders");
  }
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  ASSERT_TRUE(comes([&] { return archiver_->status().behind == 0; }));
  expect_restores("orders");
}

TEST_F(ArchiverTest, WhoWaitsSharesWhatIsPut) {
  archiver_options_.schedule.sync = 1h;
  start();
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  constexpr int kWriters = 50;
  std::atomic<int> there{0};
  std::vector<Bookmark> written;
  for (int i = 0; i < kWriters; ++i) {
    write("orders", "INSERT INTO t(b) VALUES(1)");
    written.push_back(store_->position(name("orders"))->bookmark());
  }
  for (const Bookmark& bookmark : written) {
    archiver_->when_there("orders", bookmark, [&](const Result<>& reached) {
      EXPECT_TRUE(reached);
      ++there;
    });
  }
  EXPECT_TRUE(comes([&] { return there == kWriters; }));
  EXPECT_LT(files("orders").size(), 5u);
  EXPECT_EQ(restore("orders").text, query("orders", kContent));
  // It is not waited for again.
  bool is_there = false;
  archiver_->when_there("orders", store_->position(name("orders"))->bookmark(),
                        [&](const Result<>& reached) { is_there = reached.has_value(); });
  EXPECT_TRUE(is_there);
  // A dropped database's transaction never comes, nor does one after the end.
  Bookmark later = store_->position(name("orders"))->bookmark();
  ++later.txid.value;
  std::atomic<int> failed{0};
  auto fails = [&](const Result<>& reached) { failed += !reached; };
  ASSERT_TRUE(store_->drop(name("orders")));
  archiver_->when_there("orders", later, fails);
  EXPECT_TRUE(comes([&] { return failed == 1; }));
  create("orders");
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  archiver_->when_there("orders", later, fails);
  EXPECT_TRUE(comes([&] { return failed == 2; }));
  archiver_->stop();
  archiver_->when_there("orders", later, fails);
  EXPECT_EQ(failed, 3);
}

// Nor for a snapshot of the whole, however long it takes.
TEST_F(ArchiverTest, WhoWaitsDoesNotWaitForASnapshot) {
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  write("orders", "INSERT INTO t(b) VALUES(randomblob(4000000))");
  std::atomic<bool> is_there{false}, was_there{false}, began{false};
  objects_ = open_object_store("file:///archive", disk_).value();
  disk_.set_hook([&](const FaultFileSystem::Call& call) {
    if (call.path.find("archive/orders/ltx/9/") == std::string::npos) return 0;
    if (call.operation == FaultFileSystem::Operation::kWrite && !began.exchange(true)) {
      std::thread([&] {
        write("orders", "INSERT INTO t(b) VALUES(1)");
        archiver_->when_there("orders", store_->position(name("orders"))->bookmark(),
                              [&](const Result<>& reached) { is_there = reached.has_value(); });
      }).join();
    }
    if (call.operation == FaultFileSystem::Operation::kRename) was_there = is_there.load();
    return 0;
  });
  pass(25h);
  start();
  EXPECT_TRUE(comes([&] { return was_there.load(); }));
  expect_restores("orders");
  archiver_.reset();  // the hook refers to what goes now
}

TEST_F(ArchiverTest, DroppedHistoriesGoWhenTheirTimeIsOver) {
  now_ms_ = unix_time_ms();
  archiver_options_.dropped_look = 10ms;
  start();
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  expect_restores("orders");
  ASSERT_TRUE(store_->drop(name("orders")));
  create("orders");
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  expect_restores("orders");
  auto dropped = [&] { return objects_->list("_offprint/dropped/").value().size(); };
  EXPECT_EQ(dropped(), 2u) << "a file and the history";
  pass(24h * 29);
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(dropped(), 2u);
  pass(24h * 2);
  EXPECT_TRUE(comes([&] { return dropped() == 0; }));
  expect_restores("orders");
}

// What left the log while nothing was archived.
TEST_F(ArchiverTest, IdleDatabasesOfBeforeAreArchivedToo) {
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  options_.log_bytes_max = 1;
  open();
  create("busy");
  write("busy", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  Bookmark none{{}, TxId{0}, store_->position(name("orders"))->lineage};
  ASSERT_TRUE(comes([&] {
    write("busy", "INSERT OR REPLACE INTO t VALUES(1, randomblob(400000))");
    return !store_->log_after(name("orders"), none, 1);
  }));
  start();
  expect_restores("orders");
  expect_restores("busy");
  archiver_->stop();
  std::uint64_t puts = archiver_->status().puts;
  EXPECT_GT(puts, 2u);
  archiver_.reset();
  objects_ = open_object_store(folder_url_).value();
  start();  // and once only
  ASSERT_TRUE(comes([&] { return archiver_->status().behind == 0; }));
  EXPECT_EQ(archiver_->status().puts, 0u);
}

TEST_F(ArchiverTest, AnArchiveThatDoesNotAnswerHoldsUpNothing) {
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  hangs_ = true;
  objects_ = open_object_store("file:///archive", disk_).value();
  disk_.set_hook([this](const FaultFileSystem::Call&) {
    while (hangs_) std::this_thread::sleep_for(1ms);
    return 0;
  });
  archiver_options_.start_wait_ms = 50;
  start();
  write("orders", "INSERT INTO t(b) VALUES(1)");
  EXPECT_GT(archiver_->status().behind, 0u);
  hangs_ = false;
  expect_restores("orders");
}

TEST_F(ArchiverTest, FailuresHealAndNothingIsLost) {
  objects_ = open_object_store("file:///archive", disk_).value();
  archiver_options_.retry_max_ms = 20;
  start();
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  expect_restores("orders");
  disk_.set_hook([](const FaultFileSystem::Call& call) {
    return call.operation == FaultFileSystem::Operation::kWrite ? ENOSPC : 0;
  });
  write("orders", "INSERT INTO t(b) VALUES(1)");  // the commit does not wait for it
  EXPECT_TRUE(comes([&] { return archiver_->status().failures > 1; }));
  EXPECT_EQ(archiver_->status().behind, 1u);
  EXPECT_THAT(archiver_->status().error, HasSubstr("No space"));
  disk_.set_hook({});
  expect_restores("orders");
  EXPECT_TRUE(comes([&] { return archiver_->status().behind == 0; }));
  EXPECT_EQ(archiver_->status().error, "");
}

// The log keeps what the archive does not have, over its own limits.
TEST_F(ArchiverTest, TheLogWaitsForTheArchive) {
  options_.log_bytes_max = 1;
  for (bool is_bounded : {false, true}) {
    options_.log_held_bytes_max = is_bounded ? 1 << 20 : 1 << 30;
    open();
    std::string database = is_bounded ? "bounded" : "held";
    create(database);
    write(database, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    archiver_options_.schedule.sync = 1h;
    objects_ = open_object_store(folder_url_).value();
    start();
    for (int i = 0; i < 60; ++i)
      write(database, "INSERT OR REPLACE INTO t VALUES(1, randomblob(400000))");
    Bookmark first{{}, TxId{1}, store_->position(name(database))->lineage};
    if (!is_bounded) {
      EXPECT_TRUE(store_->log_after(name(database), first, 1));
    } else {
      EXPECT_TRUE(comes([&] {
        write(database, "INSERT OR REPLACE INTO t VALUES(1, randomblob(400000))");
        return !store_->log_after(name(database), first, 1);
      }));
    }
    archiver_->stop();
    archiver_.reset();
    objects_ = open_object_store(folder_url_).value();
    Content newest = restore(database);
    ASSERT_TRUE(newest.restored) << newest.restored.error().message();
    EXPECT_EQ(newest.text, query(database, kContent));
    EXPECT_EQ(restore(database, TxId{1}).restored.has_value(), false) << "one file, or a snapshot";
  }
}

}  // namespace
}  // namespace offprint::archive::testing
