#include "replica/follower.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "replica/follower_testing.h"

namespace offprint::replica {
namespace {

using sqlite::Connection;
using sqlite::testing::content_hash;
using sqlite::testing::open_plain;
using testing::FollowerTest;
using testing::LtxPrimary;
using testing::SentState;
using testing::TestServer;

TEST_F(FollowerTest, OnceCatchesUpAndReturns) {
  auto outcome = run_once(options());
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(*outcome, FollowerOutcome::kCaughtUp);
  expect_equal();
  EXPECT_EQ(events_.last_server, "test");
  EXPECT_NE(server_.last_request.find("Authorization: Bearer secret"), std::string::npos);
  EXPECT_NE(server_.last_request.find("Offprint-Stream-Version: 1"), std::string::npos);
  random_transactions(30);
  outcome = run_once(options());
  ASSERT_TRUE(outcome) << outcome.error().message();
  expect_equal();
  EXPECT_EQ(server_.snapshots, 1) << "the second time it went on from its position";
  EXPECT_EQ(events_.transactions, 30u);
  EXPECT_LT(events_.applies, 20) << "what waits is applied as one";
}

TEST_F(FollowerTest, FollowsLive) {
  start(options());
  ASSERT_TRUE(wait_for_primary());
  for (int i = 0; i < 40; ++i) {
    random_transactions(1 + i % 3);
    ASSERT_TRUE(wait_for_primary()) << i;
    expect_equal();
  }
  stop();
  ASSERT_TRUE(outcome_);
  EXPECT_EQ(*outcome_, FollowerOutcome::kStopped);
  EXPECT_EQ(server_.streams, 1);
}

TEST_F(FollowerTest, GoesOnAfterCutsAtAnyByte) {
  sqlite::testing::must(primary_->db(), "CREATE TABLE big AS SELECT randomblob(80000) AS b");
  primary_->capture();
  publish({});
  for (std::size_t cut = 20; cut < 60'000; cut = cut * 3 / 2 + 13) {
    server_.change([&] { server_.cut_after = cut; });
    random_transactions(3);
    start(options());
    ASSERT_TRUE(events_.wait([&] { return !events_.interruptions.empty(); })) << cut;
    server_.change([&] { server_.cut_after = SIZE_MAX; });
    ASSERT_TRUE(wait_for_primary()) << cut;
    stop();
    expect_equal();
    events_.interruptions.clear();
    std::filesystem::remove(path_);
  }
}

TEST_F(FollowerTest, DamagedBytesAreFetchedAgain) {
  server_.change([&] { server_.damage = true; });
  start(options());
  ASSERT_TRUE(wait_for_primary());
  server_.change([&] { server_.damage = true; });
  random_transactions(5);
  ASSERT_TRUE(wait_for_primary());
  stop();
  expect_equal();
  EXPECT_EQ(events_.interruptions.size(), 2u);
}

TEST_F(FollowerTest, ASilentServerIsLeft) {
  server_.change([&] { server_.quiet = true; });
  start(options());
  ASSERT_TRUE(events_.wait([&] { return !events_.interruptions.empty(); }));
  EXPECT_NE(events_.interruptions[0].find("nothing heard"), std::string::npos)
      << events_.interruptions[0];
  server_.change([&] { server_.quiet = false; });
  random_transactions(1);
  ASSERT_TRUE(wait_for_primary());
}

TEST_F(FollowerTest, AForgottenPositionCostsOnlyTheDifferences) {
  sqlite::testing::must(
      primary_->db(),
      "INSERT INTO t(b) SELECT randomblob(700) FROM (WITH RECURSIVE n(i) AS (VALUES(1) "
      "UNION ALL SELECT i+1 FROM n LIMIT 250) SELECT i FROM n)");
  primary_->capture();
  publish({});
  ASSERT_TRUE(run_once(options()));
  sqlite::testing::must(primary_->db(), "UPDATE t SET b=randomblob(700) WHERE id=9");
  primary_->capture();
  server_.change([&] {
    server_.known.clear();
    server_.log.clear();
    server_.pages_sent = 0;
  });
  publish({});
  auto outcome = run_once(options());
  ASSERT_TRUE(outcome) << outcome.error().message();
  expect_equal();
  EXPECT_EQ(server_.differences, 1);
  EXPECT_LT(server_.pages_sent, 10u);
  EXPECT_EQ(events_.resyncs.size(), 1u);
}

TEST_F(FollowerTest, ADivergedCopyIsFoundAndMended) {
  ASSERT_TRUE(run_once(options()));
  // The server says another checksum at our position: as after a forced failover.
  auto other = std::make_unique<LtxPrimary>(folder_ / "other.db", primary_options());
  other->primary().make_tables();
  sqlite::testing::must(other->db(), "INSERT INTO t(a) VALUES('other')");
  other->capture();
  Position diverged = other->position();
  SentState state = other->state();
  diverged.lineage = primary_->position().lineage;
  state.position = diverged;
  server_.change([&] {
    server_.state = state;
    server_.known = {diverged};
  });
  auto outcome = run_once(options());
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(events_.resyncs.size(), 1u);
  Connection reader = open_plain(path_);
  EXPECT_EQ(content_hash(reader), content_hash(other->db()));
}

TEST_F(FollowerTest, VerifyFindsAForeignWrite) {
  ASSERT_TRUE(run_once(options()));
  {
    Connection foreign = open_plain(path_);
    sqlite::testing::must(foreign, "INSERT INTO w VALUES('foreign','write')");
  }
  FollowerOptions chosen = options();
  chosen.verify = true;
  auto outcome = run_once(chosen);
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(events_.verified_different, 1);
  EXPECT_EQ(events_.verified_equal, 1);
  expect_equal();
}

TEST_F(FollowerTest, ADroppedDatabaseEndsIt) {
  start(options());
  ASSERT_TRUE(wait_for_primary());
  server_.change([&] { server_.dropped = true; });
  thread_.join();
  ASSERT_TRUE(outcome_) << outcome_.error().message();
  EXPECT_EQ(*outcome_, FollowerOutcome::kDropped);
  // Dropped while we were away.
  auto outcome = run_once(options());
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(*outcome, FollowerOutcome::kDropped);
  expect_equal();
}

TEST_F(FollowerTest, SaysWhyItCannotFollow) {
  FollowerOptions chosen = options();
  server_.change([&] { server_.status = 401; });
  EXPECT_EQ(run_once(chosen).error().code(), Code::kUnauthorized);
  server_.change([&] { server_.status = 404; });
  EXPECT_EQ(run_once(chosen).error().code(), Code::kNotFound);
  server_.change([&] { server_.status = 503; });
  EXPECT_EQ(run_once(chosen).error().code(), Code::kUnavailable);
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_FALSE(std::filesystem::exists(path_ + "-offprint"))
      << "a first start that failed leaves nothing";
  chosen.url = "http://127.0.0.1:9/db/t";
  EXPECT_EQ(run_once(chosen).error().code(), Code::kUnavailable);
  chosen.url = "ftp://127.0.0.1/db/t";
  EXPECT_EQ(run_once(chosen).error().code(), Code::kInvalid);
  chosen.url = "http://user:secret@127.0.0.1/db/t";
  EXPECT_EQ(run_once(chosen).error().code(), Code::kInvalid);
  std::ofstream(path_) << "not a database of ours";
  EXPECT_EQ(run_once(options()).error().code(), Code::kForbidden);
}

TEST_F(FollowerTest, ACopyOfAnotherDatabaseIsNotOverwritten) {
  ASSERT_TRUE(run_once(options()));
  TestServer second;
  LtxPrimary other(folder_ / "other.db", primary_options());
  other.primary().make_tables();
  other.capture();
  second.change([&] {
    second.state = other.state();
    second.known = {second.state.position};
  });
  FollowerOptions chosen = options();
  chosen.url = second.url();
  auto refused = run_once(chosen);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kForbidden);
  expect_equal();
  // The same database at another address is followed on.
  second.change([&] {
    second.state = server_.state;
    second.known = server_.known;
  });
  EXPECT_TRUE(run_once(chosen));
  expect_equal();
}

TEST_F(FollowerTest, ANewLineageAtTheSameAddressIsTaken) {
  ASSERT_TRUE(run_once(options()));
  primary_ = std::make_unique<LtxPrimary>(folder_ / "new.db", primary_options());
  primary_->primary().make_tables();
  primary_->capture();
  server_.change([&] {
    server_.known.clear();
    server_.log.clear();
    server_.hashes_max = 20;  // and it takes no hashes: a whole snapshot into the same file
  });
  publish({});
  auto outcome = run_once(options());
  ASSERT_TRUE(outcome) << outcome.error().message();
  expect_equal();
  EXPECT_EQ(server_.differences, 0);
  EXPECT_EQ(server_.snapshots, 2);
}

TEST_F(FollowerTest, LargeTransactionsGoThroughASpool) {
  start(options());
  ASSERT_TRUE(wait_for_primary());
  sqlite::testing::must(primary_->db(), "INSERT INTO t(b) VALUES(randomblob(3000000))");
  publish({primary_->capture()});
  ASSERT_TRUE(wait_for_primary());
  random_transactions(3);
  ASSERT_TRUE(wait_for_primary());
  stop();
  expect_equal();
}

}  // namespace
}  // namespace offprint::replica
