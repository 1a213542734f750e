#include "cluster/clustered_store.h"

#include <cstdlib>
#include <random>

#include "cluster/clustered_store_testing.h"
#include "database/state.h"
#include "ltx/codec.h"

namespace offprint::cluster {
namespace {

using database::Outcome;
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

TEST_F(ClusteredStoreTest, WhoIsPrimaryAgainWritesInItsNewEpoch) {
  for (auto& node : nodes_) {
    node->adjust = [](database::StoreOptions& options) { options.idle_close_ms = 60'000; };
    node->stop({});
  }
  for (auto& node : nodes_) node->start();
  connect();
  create("shop");
  ASSERT_TRUE(write("shop", "CREATE TABLE t(a)"));
  const std::size_t first = primary().value_or(0);
  for (const std::size_t to : {(first + 1) % 3, first}) {
    ASSERT_TRUE(within(std::chrono::seconds(20), [&] {
      const std::size_t from = primary().value_or(to);
      (void)nodes_[from]->running()->cluster.log().hand_over(0,
                                                             member_of(static_cast<int>(to) + 1));
      return primary() == to;
    }));
  }
  ASSERT_TRUE(write("shop", "INSERT INTO t VALUES(1)"));
  EXPECT_TRUE(agree());
}

TEST_F(ClusteredStoreTest, AnImportIsOnAllNodes) {
  const database::testing::TemporaryFolder folder;
  auto file_with = [&](const std::string& file, int bytes) {
    const std::string path = folder.path() + "/" + file;
    auto made = sqlite::Connection::open(path, {.create = true});
    EXPECT_TRUE(made && made->execute("CREATE TABLE t(a)"));
    EXPECT_TRUE(made->execute(fmt::format("INSERT INTO t VALUES(randomblob({}))", bytes).c_str()));
    return path;
  };
  const std::string small = file_with("small", 100), large = file_with("large", 3'000'000);
  create("other");
  ASSERT_TRUE(agree());
  Running node = nodes_[primary().value_or(0)]->running();
  for (const auto& [to, file] : {std::pair("large", large), std::pair("small", small)}) {
    auto imported = node->store->import_file(name(to), file);
    ASSERT_TRUE(imported) << imported.error().message();
  }
  node.reset();
  ASSERT_TRUE(write("small", "INSERT INTO t VALUES(1)"));
  ASSERT_TRUE(agree());
  for (auto& each : nodes_) {
    database::Store& store = *each->running()->store;
    EXPECT_EQ(rows(store, "small", "SELECT count(*) FROM t"), "2\n");
    EXPECT_EQ(rows(store, "large", "SELECT sum(length(a)) FROM t"), "3000000\n");
    EXPECT_EQ(store.list("", "", 10).size(), 3U);
  }
}

// The primary dies with a record on its disk that nobody else has.
TEST_F(ClusteredStoreTest, WhatWasNotDecidedIsNotThereAfterARestart) {
  create("shop");
  ASSERT_TRUE(write("shop", "CREATE TABLE t(a)"));
  ASSERT_TRUE(agree());
  const std::size_t at = primary().value_or(0);
  for (int n = 1; n <= 3; ++n) nodes_[at]->cut(n, true);
  std::future<Answers> lonely;
  {
    Running node = nodes_[at]->running();
    auto request = std::make_unique<database::testing::TextRequest>(
        std::vector<std::string>{"INSERT INTO t VALUES('lonely')"}, false);
    lonely = request->future();
    node->store->submit(name("shop"), std::move(request));
    ASSERT_TRUE(within(std::chrono::seconds(5), [&] {
      const auto status = node->cluster.log().status(0).member;
      return status.last > status.commit && status.durable == status.last;
    }));
  }
  nodes_[at]->crash();
  EXPECT_EQ(lonely.get().outcome.state, Outcome::State::kUnknown);
  ASSERT_TRUE(write("shop", "INSERT INTO t VALUES('other')"));
  nodes_[at]->start();
  EXPECT_FALSE(nodes_[at]->running()->cluster.begun());
  for (int n = 1; n <= 3; ++n) nodes_[at]->cut(n, false);
  connect();
  ASSERT_TRUE(agree()) << describe();
  for (auto& node : nodes_)
    EXPECT_EQ(rows(*node->running()->store, "shop", "SELECT a FROM t"), "other\n");
}

// What was decided fits what a node has, or the node does not go on: a record that was made upon
// another state is not applied.
TEST_F(ClusteredStoreTest, ARecordThatDoesNotFitIsNotApplied) {
  create("shop");
  ASSERT_TRUE(write("shop", "CREATE TABLE t(a)"));
  ASSERT_TRUE(agree());
  const std::size_t at = primary().value_or(0);
  const auto info = nodes_[at]->running()->store->info(name("shop"));
  const auto position = nodes_[at]->running()->store->position(name("shop"));
  ASSERT_TRUE(info && position);
  auto state = database::DatabaseState::never_written(position->lineage, position->epoch, 4096);
  state.position = *position;
  state.position.txid = position->txid.next();
  state.page_count = info->page_count;
  ltx::Header header;
  header.page_size = info->page_size;
  header.page_count = info->page_count;
  header.min_txid = header.max_txid = state.position.txid;
  header.pre_apply = Checksum{position->checksum.value ^ 1};
  journal::Draft draft;
  draft.kind = journal::Kind::kTransaction;
  draft.database_id = info->id;
  draft.metadata.push_back({journal::MetadataType::kDatabaseState, state.encode()});
  ltx::BytesSink sink(draft.payload);
  ltx::Encoder encoder(sink);
  ASSERT_TRUE(encoder.begin(header));
  ASSERT_TRUE(encoder.page(2, Bytes(info->page_size)));
  ASSERT_TRUE(encoder.finish(position->checksum));
  for (auto& node : nodes_) node->tolerated = Code::kCorrupt;
  {
    Running node = nodes_[at]->running();
    auto appended = node->cluster.log().append(0, std::move(draft));
    ASSERT_TRUE(appended);
    ASSERT_TRUE(node->cluster.log().wait(*appended, SteadyClock::now() + std::chrono::seconds(20)));
  }
  for (std::size_t n = 0; n < nodes_.size(); ++n) {
    if (n == at) continue;
    EXPECT_TRUE(within(std::chrono::seconds(20), [&] { return nodes_[n]->failed.load(); }));
    EXPECT_EQ(nodes_[n]->running()->store->position(name("shop"))->txid, position->txid);
  }
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
