#include "cluster/clustered_store.h"

#include <cstdlib>
#include <random>

#include "cluster/clustered_store_testing.h"
#include "cluster/coordinator_local.h"
#include "cluster/coordinator_table.h"

namespace offprint::cluster {
namespace {

using namespace std::chrono_literals;
using database::DatabaseName;
using database::Outcome;
using database::testing::Answers;
using database::testing::FaultVfs;
using database::testing::TextRequest;
using testing::member_of;
using testing::StoreNode;
using Running = std::shared_ptr<StoreNode::Running>;

DatabaseName name(const std::string& text) { return DatabaseName::parse(text).value(); }

class ClusteredStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    FaultVfs::instance().use(&disks_);
    GroupRecord record;
    record.epoch = Epoch{1};
    record.primary = member_of(1);
    for (int n = 1; n <= 3; ++n) record.replicas.push_back(member_of(n));
    record.in_sync = record.replicas;
    record.min_in_sync = 2;
    record.lineage = Lineage::random();
    table_->compare_and_swap({RecordKeys{"test"}.group(0), 0, record.to_json()});
    for (int n = 1; n <= 3; ++n) {
      nodes_.push_back(std::make_unique<StoreNode>(
          n, disks_, [this] { return create_mem_coordinator(table_); }));
    }
    for (auto& node : nodes_) ASSERT_NO_FATAL_FAILURE(node->start());
    connect();
  }
  void TearDown() override {
    for (auto& node : nodes_) node->stop({});
    nodes_.clear();
    FaultVfs::instance().use(nullptr);
  }
  void connect() {
    for (auto& node : nodes_) {
      for (auto& other : nodes_) {
        if (node != other && node->runs() && other->runs()) node->connect(*other);
      }
    }
  }
  void restart(std::size_t index, std::optional<std::uint64_t> power_loss_seed) {
    nodes_[index]->stop(power_loss_seed);
    nodes_[index]->start();
    connect();
  }

  template <class Done>
  static bool within(std::chrono::seconds time, Done done) {
    for (Deadline until = SteadyClock::now() + time; SteadyClock::now() < until;) {
      if (done()) return true;
      std::this_thread::sleep_for(5ms);
    }
    return done();
  }
  // The node that writes, when there is one.
  std::optional<std::size_t> primary() {
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      Running node = nodes_[i]->running();
      if (node && node->cluster.begun() && node->cluster.leads()) return i;
    }
    return std::nullopt;
  }
  static Answers run(database::Store& store, const std::string& database,
                     std::vector<std::string> statements) {
    auto request = std::make_unique<TextRequest>(std::move(statements), false);
    auto future = request->future();
    store.submit(name(database), std::move(request));
    return future.get();
  }
  std::string describe() {
    std::string text;
    for (auto& each : nodes_) {
      Running node = each->running();
      if (!node) continue;
      const auto status = node->cluster.log().status(0);
      text += fmt::format(
          "\n{}: role {} epoch {} primary {} last {} durable {} commit {} start {} leads {} found "
          "{} | begun {} taken {} leads {}",
          each->folder(), static_cast<int>(status.member.role), status.member.epoch.value,
          status.member.primary.value, status.member.last.value, status.member.durable.value,
          status.member.commit.value, status.member.start.value, status.member.leads,
          status.found.value, node->cluster.begun(), node->cluster.taken().value,
          node->cluster.leads().value_or(Epoch{}).value);
    }
    return text;
  }
  // As a client does who asks one node after the other. Nothing: it is not known whether it was
  // done.
  std::optional<Answers> write(const std::string& database, const std::string& sql) {
    for (Deadline until = SteadyClock::now() + 30s; SteadyClock::now() < until;) {
      for (auto& each : nodes_) {
        Running node = each->running();
        if (!node || !node->cluster.begun()) continue;
        Answers answers = run(*node->store, database, {sql});
        if (answers.outcome.state == Outcome::State::kUnknown) return std::nullopt;
        if (answers.outcome.state == Outcome::State::kCommitted && !answers.outcome.error)
          return answers;
      }
      std::this_thread::sleep_for(5ms);
    }
    ADD_FAILURE() << "no node took: " << sql << describe();
    return std::nullopt;
  }
  void create(const std::string& database) {
    EXPECT_TRUE(within(30s, [&] {
      auto at = primary();
      Running node = at ? nodes_[*at]->running() : nullptr;
      return node && node->store->create(name(database), {}).has_value();
    })) << database;
  }
  static std::string rows(database::Store& store, const std::string& database,
                          const std::string& sql) {
    Answers answers = run(store, database, {sql});
    if (answers.outcome.error) return "error: " + answers.outcome.error->message();
    if (answers.statements.at(0).code != 0) return "error: " + answers.statements[0].message;
    std::string text;
    for (const std::string& row : answers.statements[0].rows) text += row + "\n";
    return text;
  }
  // All nodes have the same states, of all databases.
  bool agree() {
    return within(60s, [&] {
      std::set<std::string> seen;
      for (auto& each : nodes_) {
        Running node = each->running();
        if (!node || !node->cluster.begun()) return false;
        std::string text;
        for (const auto& info : node->store->list("", "", 1000)) {
          auto at = node->store->position(name(info.name));
          text += fmt::format("{} {} {:x} {}\n", info.name, at->txid.value, at->checksum.value,
                              at->lineage.text());
        }
        seen.insert(text);
      }
      return seen.size() == 1;
    });
  }

  testing::Disks disks_;
  std::shared_ptr<RegisterTable> table_ = std::make_shared<RegisterTable>();
  std::vector<std::unique_ptr<StoreNode>> nodes_;
};

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
    ASSERT_TRUE(within(20s, [&] {
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
