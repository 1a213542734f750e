#include "cluster/clustered_store.h"

#include <cstdlib>
#include <random>

#include "cluster/clustered_store_testing.h"

namespace offprint::cluster {
namespace {

using database::testing::Answers;
using testing::member_of;

class ClusteredStoreTest : public testing::StoreCluster {};

TEST_F(ClusteredStoreTest, WhatThePrimaryWritesIsOnAllNodes) {
  create("shop");
  ASSERT_TRUE(write("shop", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)"));
  for (int i = 1; i <= 200; ++i)
    ASSERT_TRUE(write("shop", fmt::format("INSERT INTO t VALUES({}, randomblob(500))", i)));
  ASSERT_TRUE(agree());
  const std::string all = "SELECT id, hex(a) FROM t ORDER BY id";
  const std::string first = rows(*nodes_[0]->running()->store, "shop", all);
  EXPECT_EQ(std::ranges::count(first, '\n'), 200);
  for (auto& node : nodes_) EXPECT_EQ(rows(*node->running()->store, "shop", all), first);
  // A follower takes no writes.
  const std::size_t other = (*primary() + 1) % 3;
  Answers refused = run(*nodes_[other]->running()->store, "shop", {"DELETE FROM t"});
  ASSERT_TRUE(refused.outcome.error);
  EXPECT_EQ(refused.outcome.error->code(), Code::kNotPrimary);
  // Databases come and go everywhere.
  create("other");
  ASSERT_TRUE(nodes_[*primary()]->running()->store->drop(name("shop")));
  ASSERT_TRUE(agree());
  EXPECT_EQ(nodes_[other]->running()->store->list("", "", 10).size(), 1U);
}

TEST_F(ClusteredStoreTest, AHandOverGoesOnWhereTheOtherStood) {
  create("shop");
  ASSERT_TRUE(write("shop", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)"));
  for (int round = 0; round < 12; ++round) {
    ASSERT_TRUE(write("shop", fmt::format("INSERT INTO t(a) VALUES({})", round)));
    const std::size_t from = primary().value_or(0);
    const std::size_t to = (from + 1) % 3;
    ASSERT_TRUE(within(std::chrono::seconds(20), [&] {
      (void)nodes_[from]->running()->cluster.log().hand_over(0,
                                                             member_of(static_cast<int>(to) + 1));
      return primary() == to;
    })) << round;
  }
  ASSERT_TRUE(agree());
  EXPECT_EQ(rows(*nodes_[1]->running()->store, "shop", "SELECT count(*), sum(a) FROM t"),
            "12|66\n");
}

// Nodes stop and lose power one after the other, clients write: what was acknowledged is there,
// once, on all of them.
TEST_F(ClusteredStoreTest, NothingIsLostWhoeverDies) {
  const char* rounds = std::getenv("OFFPRINT_TEST_ROUNDS");
  const char* seed = std::getenv("OFFPRINT_TEST_SEED");
  std::mt19937_64 random(seed != nullptr ? std::strtoull(seed, nullptr, 10) : 7);
  std::vector<std::string> databases = {"a", "b", "c"};
  for (const std::string& database : databases) {
    create(database);
    (void)write(database, "CREATE TABLE t(id TEXT, filler)");
  }
  std::atomic<bool> done = false;
  std::set<std::string> acknowledged[3], tried[3];
  std::vector<std::thread> clients;
  for (std::size_t c = 0; c < 3; ++c) {
    clients.emplace_back([&, c] {
      for (int i = 0; !done; ++i) {
        const std::string id = fmt::format("{}-{}", c, i);
        tried[c].insert(id);
        if (write(databases[c],
                  fmt::format("INSERT INTO t VALUES('{}', randomblob({}))", id, i % 7 * 300)))
          acknowledged[c].insert(id);
      }
    });
  }
  for (int i = 0, n = rounds != nullptr ? std::atoi(rounds) : 12; i < n; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 400));
    if (random() % 6 == 0) {
      for (auto& node : nodes_) node->stop(random());
      for (auto& node : nodes_) node->start();
      connect();
    } else {
      restart(random() % 3, random() % 3 == 0 ? std::nullopt : std::optional(random()));
    }
  }
  done = true;
  for (std::thread& client : clients) client.join();
  ASSERT_TRUE(agree()) << describe();
  for (auto& node : nodes_) {
    for (std::size_t c = 0; c < 3; ++c) {
      database::Store& store = *node->running()->store;
      EXPECT_EQ(rows(store, databases[c], "SELECT id FROM t GROUP BY id HAVING count(*) > 1"), "");
      EXPECT_EQ(rows(store, databases[c], "PRAGMA integrity_check"), "ok\n");
      std::set<std::string> found;
      Answers answers = run(store, databases[c], {"SELECT id FROM t"});
      for (const std::string& id : answers.statements.at(0).rows) found.insert(id);
      for (const std::string& id : acknowledged[c]) EXPECT_TRUE(found.contains(id)) << id;
      for (const std::string& id : found) EXPECT_TRUE(tried[c].contains(id)) << id;
    }
  }
  fmt::print("{} writes acknowledged\n",
             acknowledged[0].size() + acknowledged[1].size() + acknowledged[2].size());
}

}  // namespace
}  // namespace offprint::cluster
