#include "archive/prover.h"

#include <gmock/gmock.h>

#include <mutex>
#include <random>
#include <thread>

#include "archive/archive_testing.h"
#include "archive/archiver.h"

namespace offprint::archive::testing {
namespace {

using namespace std::chrono_literals;

class ProverTest : public ArchiveTest {
 protected:
  void SetUp() override {
    ArchiveTest::SetUp();
    create("orders");
    write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    archiver_options_.schedule.sync = 0ms;
    archiver_options_.wall_clock_ms = [this] { return now_ms_.load(); };
    archiver_options_.retry_max_ms = 20;
    options_of_prover_.scratch = folder_.path() + "/scratch";
    options_of_prover_.file = folder_.path() + "/proofs";
    options_of_prover_.wall_clock_ms = archiver_options_.wall_clock_ms;
    options_of_prover_.bytes_per_second = 1 << 30;
  }
  void TearDown() override {
    prover_.reset();
    archiver_.reset();
    ArchiveTest::TearDown();
  }
  void start_archiver() {
    archiver_ = std::make_unique<Archiver>(*objects_, *store_, "node", archiver_options_);
    ASSERT_TRUE(archiver_->start());
  }
  void start_prover() {
    prover_ = std::make_unique<Prover>(
        *objects_, *store_,
        [this](const std::string& database, const std::vector<std::string>& keys) {
          return archiver_->repair(database, keys);
        },
        options_of_prover_);
    ASSERT_TRUE(prover_->start());
  }
  template <class Condition>
  static bool comes(Condition condition) {
    for (Deadline until = SteadyClock::now() + 30s; SteadyClock::now() < until;) {
      if (condition()) return true;
      std::this_thread::sleep_for(2ms);
    }
    return false;
  }
  void insert(int count) {
    for (int i = 0; i < count; ++i) {
      write("orders", "INSERT INTO t(b) VALUES(randomblob(1000))");
      ASSERT_TRUE(archiver_->wait(name("orders"), SteadyClock::now() + 20s));
    }
  }
  std::vector<std::string> damage() {
    VerifyOptions options;
    options.scratch = folder_.path();
    auto verified = verify_archive(*objects_, "orders/", options);
    if (!verified) return {verified.error().message()};
    return verified->damage;
  }
  void flip(const std::string& key) {
    Bytes bytes = read_object(*objects_, key, 64 << 20).value();
    bytes[bytes.size() / 2] ^= 1;
    ltx::BytesSource source(bytes);
    ASSERT_TRUE(objects_->put(key, source, {}));
  }

  ArchiverOptions archiver_options_;
  ProverOptions options_of_prover_;
  std::unique_ptr<Archiver> archiver_;
  std::unique_ptr<Prover> prover_;
};

TEST_F(ProverTest, EachArchiveIsProvenInItsTime) {
  create("shop/orders");
  write("shop/orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
  create("never");
  start_archiver();
  ASSERT_TRUE(comes([&] { return archiver_->status().behind == 0; }));
  start_prover();
  EXPECT_TRUE(comes([&] { return prover_->status().proofs == 3; })) << "with the list of databases";
  EXPECT_EQ(prover_->status().unproven, 0u);
  EXPECT_EQ(prover_->status().damages, 0u);
  prover_->stop();
  // What was proven is known after a restart, and proven again when its time has come.
  pass(24h * 6);
  start_prover();
  EXPECT_TRUE(comes([&] { return prover_->status().oldest_ms >= 24 * 6 * 3'600'000; }));
  EXPECT_EQ(prover_->status().unproven, 0u);
  EXPECT_EQ(prover_->status().proofs, 0u);
  prover_->stop();
  pass(24h * 2);
  start_prover();
  EXPECT_TRUE(comes([&] { return prover_->status().proofs == 3; }));
  EXPECT_LT(prover_->status().oldest_ms, 3'600'000);
}

// Each object in turn is damaged, or gone: it is named, and what the log has is there again.
TEST_F(ProverTest, DamageIsRepairedFromTheLog) {
  start_archiver();
  insert(12);
  const std::vector<ArchivedFile> all = files("orders");
  std::map<TxId, std::string> contents;
  for (const ArchivedFile& file : all)
    contents[file.max_txid] = restore("orders", file.max_txid).text;
  ASSERT_GE(all.size(), 12u);
  for (const ArchivedFile& file : all) {
    for (bool is_gone : {false, true}) {
      if (is_gone) {
        ASSERT_TRUE(objects_->remove({file.key}));
      } else {
        flip(file.key);
      }
      VerifyOptions options;
      options.scratch = folder_.path();
      auto verified = verify_archive(*objects_, "orders/", options);
      ASSERT_TRUE(verified) << verified.error().message();
      if (file.max_txid != all.back().max_txid || !is_gone) EXPECT_FALSE(verified->damage.empty());
      auto repaired = archiver_->repair("orders", verified->damaged_keys);
      ASSERT_TRUE(repaired) << repaired.error().message();
      EXPECT_THAT(damage(), ::testing::IsEmpty()) << file.key;
      for (const auto& [txid, content] : contents)
        EXPECT_EQ(restore("orders", txid).text, content) << file.key << " " << txid.value;
    }
  }
}

TEST_F(ProverTest, AHistoryIsPutAgain) {
  start_archiver();
  insert(3);
  const std::string key = std::string("orders/") + kHistoryKey;
  for (bool is_gone : {true, false}) {
    if (is_gone) {
      ASSERT_TRUE(objects_->remove({key}));
      start_prover();
    } else {
      flip(key);
      pass(24h * 8);
      prover_->stop();
      start_prover();
    }
    EXPECT_TRUE(comes([&] { return prover_->status().repairs == 1; }));
    EXPECT_THAT(damage(), ::testing::IsEmpty());
    EXPECT_TRUE(objects_->info(key));
    for (const ArchivedFile& file : files("orders"))
      EXPECT_EQ(restore("orders", file.max_txid).text, model("orders", file.max_txid));
  }
}

// What has left the log is lost, but the newest moment is there, and so is all that comes.
TEST_F(ProverTest, WhatIsLostIsSetAside) {
  options_.log_bytes_max = 1;
  open();
  start_archiver();
  insert(6);
  Bookmark first{{}, TxId{1}, store_->position(name("orders"))->lineage};
  ASSERT_TRUE(comes([&] {
    write("orders", "INSERT OR REPLACE INTO t VALUES(1, randomblob(400000))");
    return !store_->log_after(name("orders"), first, 1);
  }));
  ASSERT_TRUE(archiver_->wait(name("orders"), SteadyClock::now() + 20s));
  flip(files("orders").at(1).key);
  start_prover();
  ASSERT_TRUE(comes([&] { return prover_->status().repairs == 1; }));
  EXPECT_GT(prover_->status().damages, 0u);
  EXPECT_THAT(damage(), ::testing::IsEmpty());
  EXPECT_EQ(restore("orders").text, query("orders", kContent));
  EXPECT_FALSE(objects_->list("orders/offprint/damaged/").value().empty());
  insert(3);
  EXPECT_EQ(restore("orders").text, query("orders", kContent));
  EXPECT_TRUE(restore("orders").restored->proven);
  pass(2h);
  prover_->stop();
  start_prover();
  EXPECT_TRUE(comes([&] { return prover_->status().proofs > 0; }));
}

// Beside a writer that compacts and removes nothing is taken for damage.
TEST_F(ProverTest, AnArchiveThatIsWrittenIsSound) {
  options_of_prover_.every = 0ms;
  start_archiver();
  insert(1);
  start_prover();
  for (int i = 0; i < 200; ++i) {
    write("orders",
          "INSERT OR REPLACE INTO t VALUES(" + std::to_string(i % 9) + ", randomblob(2000))");
    pass(i % 10 == 0 ? 1h : 7s);
    if (i % 20 == 0) pass(25h);
  }
  EXPECT_TRUE(comes([&] { return prover_->status().proofs > 20; }));
  EXPECT_EQ(prover_->status().damages, 0u);
}

}  // namespace
}  // namespace offprint::archive::testing
