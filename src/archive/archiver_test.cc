#include "archive/archiver.h"

#include <gmock/gmock.h>

#include <algorithm>
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

TEST_F(ArchiverTest, AStopBringsTheRestThere) {
  archiver_options_.schedule.sync = 1h;
  start();
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  EXPECT_EQ(archiver_->status().behind, 1u);
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
  start("first");
  ASSERT_TRUE(is_archived("orders"));  // from here on it is idle
  Archiver second(*objects_, *store_, "second", archiver_options_);
  Result<> refused = second.start();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kConflict);
  EXPECT_THAT(refused.error().message(), HasSubstr("first"));
  // A node that is gone does not keep it.
  pass(2min);
  ASSERT_TRUE(second.start());
  write("orders", "INSERT INTO t(b) VALUES(1)");
  EXPECT_TRUE(comes([&] { return archiver_->status().failures > 0; }));
  EXPECT_THAT(archiver_->status().error, HasSubstr("second"));
}

// A node that was killed goes on at once; its files copied to another machine do not.
TEST_F(ArchiverTest, ARestartedNodeGoesOnAndItsTwinDoesNot) {
  write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  Lease killed(*objects_, "n 1", {}, archiver_options_.wall_clock_ms);
  ASSERT_TRUE(killed.hold());
  archiver_options_.former_owners = {"n 0", "n 1"};
  start("n 2");
  expect_restores("orders");
  Archiver twin(*objects_, *store_, "n 3", archiver_options_);
  EXPECT_EQ(twin.start().error().code(), Code::kConflict);
  pass(40s);  // the killed one wakes up
  EXPECT_EQ(killed.hold().error().code(), Code::kConflict);
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
