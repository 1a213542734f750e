#include "archive/archived_states.h"

#include <fmt/format.h>

#include "archive/archive_testing.h"

namespace offprint::archive {
namespace {

using namespace std::chrono_literals;

class ArchivedStatesTest : public testing::ArchiveTest {
 protected:
  void SetUp() override {
    options_.log_age_max_ms = 0;
    options_.log_bytes_max = 0;
    options_.journal.segment_size = 64 << 10;
    ArchiveTest::SetUp();
    options_.journal.segment_size = 64 << 10;
    open();
    states_options_.folder = folder_.path() + "/past";
  }
  void TearDown() override {
    store_.reset();
    states_.reset();
  }
  void connect() {
    states_ = ArchivedStates::open(*objects_, states_options_).value();
    store_->set_older_states(states_.get());
  }
  std::string content_at(const database::Moment& moment) {
    auto request =
        std::make_unique<database::testing::TextRequest>(std::vector<std::string>{kContent}, false);
    request->as_of = moment;
    auto future = request->future();
    store_->submit(name("a"), std::move(request));
    database::testing::Answers answers = future.get();
    if (answers.outcome.error) return "error: " + answers.outcome.error->message();
    return answers.statements.at(0).rows.at(0);
  }

  ArchivedStates::Options states_options_;
  std::unique_ptr<ArchivedStates> states_;
};

TEST_F(ArchivedStatesTest, WhatTheLogForgotComesFromTheArchive) {
  create("a");
  run("a", {"CREATE TABLE t(a, b)"});
  note("a");
  for (int i = 1; i <= 12; ++i) {
    pass(10s);
    write("a", fmt::format("INSERT INTO t VALUES ({}, randomblob(20000))", i));
    auto archive = load("a");
    ASSERT_TRUE(archive) << archive.error().message();
    ASSERT_TRUE((*archive)->put_transactions());
    ASSERT_TRUE((*archive)->note_head());
  }
  const Bookmark newest = store_->position(name("a"))->bookmark();
  const Bookmark third{newest.epoch, TxId{4}, newest.lineage};
  forget("a", {newest.epoch, TxId{10}, newest.lineage});
  EXPECT_NE(content_at(third).find("HISTORY_UNAVAILABLE"), std::string::npos);
  connect();
  EXPECT_EQ(content_at(third), model("a", TxId{4}));
  EXPECT_EQ(content_at(AtTime{at_ms_["a"][TxId{6}]}), model("a", TxId{6}));
  EXPECT_EQ(content_at(AtTime{at_ms_["a"][TxId{6}] + 9'999}), model("a", TxId{6}));
  {
    auto state = store_->snapshot_at(name("a"), third);
    ASSERT_TRUE(state) << state.error().message();
    auto restored = store_->rewrite(name("a"), **state);
    ASSERT_TRUE(restored) << restored.error().message();
  }
  EXPECT_EQ(query("a", kContent), model("a", TxId{4}));
  // The restore is a transaction of the archive like any other, in an epoch of its own.
  pass(10s);
  note("a");
  {
    auto archive = load("a");
    ASSERT_TRUE(archive) << archive.error().message();
    ASSERT_TRUE((*archive)->put_transactions());
    ASSERT_TRUE((*archive)->note_head());
  }
  Content there = restore("a");
  ASSERT_TRUE(there.restored) << there.restored.error().message();
  EXPECT_EQ(there.text, model("a", TxId{4}));
  EXPECT_EQ(there.restored->bookmark, store_->position(name("a"))->bookmark());
  // And can be undone.
  EXPECT_EQ(content_at(newest), model("a", newest.txid));
  // Another database is not shown it, though it is kept.
  create("b");
  run("b", {"CREATE TABLE t(a, b)"});
  EXPECT_EQ(store_->snapshot_at(name("b"), third).error().code(), Code::kNotFound);
  EXPECT_FALSE(states_->snapshot_at(name("b"), third));
  const Bookmark unknown{newest.epoch, TxId{99}, newest.lineage};
  EXPECT_NE(content_at(unknown).find("error"), std::string::npos);
}

TEST_F(ArchivedStatesTest, KeepsSomeFilesAndNotMore) {
  create("a");
  run("a", {"CREATE TABLE t(a, b)"});
  note("a");
  for (int i = 1; i <= 8; ++i) {
    pass(10s);
    write("a", fmt::format("INSERT INTO t VALUES ({}, randomblob(20000))", i));
    auto archive = load("a");
    ASSERT_TRUE(archive);
    ASSERT_TRUE((*archive)->put_transactions());
    ASSERT_TRUE((*archive)->note_head());
  }
  states_options_.bytes_max = 200'000;
  connect();
  const Bookmark newest = store_->position(name("a"))->bookmark();
  auto count = [&] {
    return std::distance(std::filesystem::directory_iterator(states_options_.folder), {});
  };
  for (std::uint64_t txid = 2; txid <= 6; ++txid) {
    auto state = states_->snapshot_at(name("a"), {newest.epoch, TxId{txid}, newest.lineage});
    ASSERT_TRUE(state) << state.error().message();
    EXPECT_EQ((*state)->position().txid, TxId{txid});
    ASSERT_TRUE((*state)->page(1));
  }
  EXPECT_GE(count(), 1);
  EXPECT_LE(count(), 4);
  auto first = states_->snapshot_at(name("a"), {newest.epoch, TxId{6}, newest.lineage});
  ASSERT_TRUE(first);
  std::filesystem::remove_all(states_options_.folder);
  std::filesystem::create_directories(states_options_.folder);
  auto again = states_->snapshot_at(name("a"), {newest.epoch, TxId{6}, newest.lineage});
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_EQ((*again)->position(), (*first)->position());
  connect();
  EXPECT_EQ(count(), 0);
}

}  // namespace
}  // namespace offprint::archive
