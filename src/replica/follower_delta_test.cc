// Transactions that come as deltas: with servers old and new, after kills of the connection, and to
// copies that are not what they should be.
#include <gtest/gtest.h>

#include "replica/follower_testing.h"

namespace offprint::replica {
namespace {

using sqlite::Connection;
using sqlite::testing::must;
using sqlite::testing::open_plain;

class FollowerDeltaTest : public testing::FollowerTest {
 protected:
  void update(const std::string& sql) {
    must(primary_->db(), sql.c_str());
    publish({primary_->capture()});
  }
};

TEST_F(FollowerDeltaTest, FollowsByDeltasAlone) {
  start(options());
  ASSERT_TRUE(wait_for_primary());
  for (int i = 0; i < 60; ++i) {
    random_transactions(1 + i % 4);
    ASSERT_TRUE(wait_for_primary()) << i;
    expect_equal();
  }
  stop();
  EXPECT_EQ(server_.files_sent, 0u);
  EXPECT_EQ(server_.deltas_sent, events_.transactions);
  EXPECT_TRUE(events_.refused_deltas.empty());
  EXPECT_TRUE(events_.resyncs.empty());
}

TEST_F(FollowerDeltaTest, WhatCameDuringALongAbsenceIsOneBatchOfDeltas) {
  ASSERT_TRUE(run_once(options()));
  random_transactions(400);
  auto outcome = run_once(options());
  ASSERT_TRUE(outcome) << outcome.error().message();
  expect_equal();
  EXPECT_EQ(server_.deltas_sent, 400u);
  EXPECT_LT(events_.applies, 200);
  EXPECT_TRUE(events_.refused_deltas.empty());
}

TEST_F(FollowerDeltaTest, AnOlderServerSendsFiles) {
  server_.change([&] { server_.speaks_deltas = false; });
  start(options());
  ASSERT_TRUE(wait_for_primary());
  random_transactions(20);
  ASSERT_TRUE(wait_for_primary());
  stop();
  expect_equal();
  EXPECT_EQ(server_.deltas_sent, 0u);
  EXPECT_EQ(server_.files_sent, 20u);
}

TEST_F(FollowerDeltaTest, OneThatDoesNotFitComesAgainAsAFile) {
  start(options());
  ASSERT_TRUE(wait_for_primary());
  for (std::size_t i = 1; i <= 5; ++i) {
    const std::size_t files = server_.look([&] { return server_.files_sent; });
    server_.change([&] { server_.wrong_delta = true; });
    update("INSERT INTO t(a, b) VALUES(" + std::to_string(i) + ", randomblob(300))");
    ASSERT_TRUE(wait_for_primary());
    ASSERT_TRUE(events_.wait([&] { return events_.refused_deltas.size() == i; }));
    EXPECT_EQ(server_.look([&] { return server_.files_sent; }), files + 1);
    expect_equal();
    stop();
    start(options());
    random_transactions(3);
    ASSERT_TRUE(wait_for_primary());
    EXPECT_EQ(server_.look([&] { return server_.files_sent; }), files + 1) << "deltas again";
  }
  EXPECT_TRUE(events_.resyncs.empty());
  EXPECT_TRUE(events_.interruptions.empty());
}

// In a page that the delta changes elsewhere: the rolling checksums of both sides would agree.
TEST_F(FollowerDeltaTest, AFileThatWasChangedBehindItsBackIsFoundAndMended) {
  for (int i = 0; i < 6; ++i)
    update("INSERT INTO t(a, b) VALUES('row', '" + std::string(40, 'a') + "')");
  start(options());
  ASSERT_TRUE(wait_for_primary());
  {
    Connection foreign = open_plain(path_);
    must(foreign, ("UPDATE t SET b = '" + std::string(40, 'z') + "' WHERE id = 2").c_str());
  }
  update("UPDATE t SET b = '" + std::string(40, 'c') + "' WHERE id = 4");
  ASSERT_TRUE(wait_for_primary());
  stop();
  expect_equal();
  EXPECT_EQ(events_.refused_deltas.size(), 1u);
  EXPECT_EQ(events_.resyncs.size(), 1u);
}

}  // namespace
}  // namespace offprint::replica
