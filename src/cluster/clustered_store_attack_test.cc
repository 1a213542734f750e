// Everything at once against a cluster of stores: transactions of all kinds, nodes that die in all
// ways, cut networks, full disks, changes of leadership; readers look for what must never be seen.
#include <cstdlib>
#include <random>

#include "cluster/clustered_store_testing.h"

namespace offprint::cluster {
namespace {

using database::Store;
using database::testing::TextRequest;
using testing::member_of;
using testing::StoreNode;
using State = database::Outcome::State;

constexpr std::size_t kDatabases = 3;

// Each row of `log` tells of its place: what stands before it is there too.
const std::vector<std::string> kSchema = {
    "CREATE TABLE log(seq INTEGER PRIMARY KEY, id TEXT UNIQUE, filler)",
    "CREATE TABLE total(n INTEGER)", "INSERT INTO total VALUES(0)",
    "CREATE TABLE latest(client TEXT PRIMARY KEY, id TEXT, filler)",
    "CREATE TRIGGER counts AFTER INSERT ON log BEGIN UPDATE total SET n = n + 1; END"};

std::uint64_t number_from_environment(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

class ClusteredStoreAttackTest : public testing::StoreCluster {
 protected:
  // What clients were told of what they wrote, and readers saw.
  struct Told {
    std::mutex mutex;
    std::set<std::string> committed, unknown, rejected;
    std::map<std::uint64_t, std::string> seen;                   // by place, of all nodes
    std::map<std::size_t, std::uint64_t> most_seen;              // by node
    std::map<std::size_t, database::Outcome> newest_of;          // by node
    std::optional<std::pair<Bookmark, std::uint64_t>> bookmark;  // and a place that it has
  };

  void SetUp() override {
    StoreCluster::SetUp();
    for (std::size_t d = 0; d < kDatabases; ++d) {
      create(database(d));
      for (const std::string& sql : kSchema) ASSERT_TRUE(write(database(d), sql));
    }
  }
  static std::string database(std::size_t number) { return fmt::format("d{}", number); }

  static std::future<Answers> submit(Store& store, const std::string& to,
                                     std::vector<std::string> sql, bool keep,
                                     std::optional<Bookmark> at_least = {}) {
    auto request = std::make_unique<TextRequest>(std::move(sql), keep);
    request->at_least = at_least;
    if (at_least) request->deadline = SteadyClock::now() + std::chrono::seconds(2);
    auto future = request->future();
    store.submit(name(to), std::move(request));
    return future;
  }
  static bool failed(const Answers& answers) {
    if (answers.outcome.error) return true;
    return std::ranges::any_of(answers.statements, [](const auto& each) { return each.code != 0; });
  }

  static std::string insert(const std::string& id, std::uint64_t size) {
    return fmt::format(
        "INSERT INTO log SELECT ifnull(max(seq), 0) + 1, '{}', randomblob({}) FROM log", id, size);
  }
  void note(Told& told, const std::vector<std::string>& ids, const Answers& last) {
    std::lock_guard lock(told.mutex);
    std::set<std::string>* to = &told.rejected;
    if (last.outcome.state == State::kUnknown) to = &told.unknown;
    if (last.outcome.state == State::kCommitted && !failed(last)) to = &told.committed;
    to->insert(ids.begin(), ids.end());
    if (last.outcome.state != State::kCommitted && !last.outcome.error)
      ADD_FAILURE() << "refused without a reason";
  }

  void write_once(Store& store, std::size_t d, Told& told, const std::string& id,
                  std::mt19937_64& dice) {
    switch (dice() % 13) {
      case 0:
        return write_held(store, d, told, id, dice);
      case 1:
        (void)submit(store, database(d), {"VACUUM"}, false).get();
        return;
      case 2:
        (void)submit(store, database(d),
                     {fmt::format("CREATE TABLE IF NOT EXISTS x{}(a)", dice() % 5),
                      fmt::format("DROP TABLE IF EXISTS x{}", dice() % 5)},
                     false)
            .get();
        return;
      case 3:
        return note(
            told, {id},
            submit(store, database(d), {insert(id, 30'000 + dice() % 60'000)}, false).get());
      case 4:
        return note(told, {id},
                    submit(store, database(d),
                           {"BEGIN",
                            fmt::format("REPLACE INTO latest VALUES('c{}', '{}', zeroblob({}))",
                                        dice() % 3, id, dice() % 3000),
                            insert(id, 10), "COMMIT"},
                           false)
                        .get());
      case 5:
        (void)store.checkpoint(name(database(d)));
        return;
      case 6:  // goes through the log in parts, now and then
        if (dice() % 4 != 0) return;
        return note(
            told, {id},
            submit(store, database(d), {insert(id, 1'200'000 + dice() % 3'000'000)}, false).get());
      default:
        return note(told, {id},
                    submit(store, database(d), {insert(id, dice() % 900)}, false).get());
    }
  }
  // An interactive transaction.
  void write_held(Store& store, std::size_t d, Told& told, const std::string& id,
                  std::mt19937_64& dice) {
    const std::vector<std::string> ids = {id + "a", id + "b"};
    Answers answers =
        submit(store, database(d), {"BEGIN IMMEDIATE", insert(ids[0], 200)}, true).get();
    if (failed(answers) || !answers.outcome.held)
      return note(told, {ids[0]}, refused_form(answers));
    auto held = answers.outcome.held;
    answers.outcome.held.reset();
    auto next = [&](std::vector<std::string> sql) {
      auto request = std::make_unique<TextRequest>(std::move(sql), true);
      auto future = request->future();
      store.submit(held, std::move(request));
      return future.get();
    };
    std::this_thread::sleep_for(std::chrono::milliseconds(dice() % 30));
    Answers second = next({insert(ids[1], 200)});
    const bool gives_up = failed(second) || dice() % 4 == 0;
    Answers last = next({gives_up ? "ROLLBACK" : "COMMIT"});
    if (gives_up) last = refused_form(last);
    note(told, ids, last);
  }
  // Nothing of it may be there.
  static Answers refused_form(Answers answers) {
    if (answers.outcome.state == State::kUnknown) return answers;
    answers.outcome.state = State::kRejected;
    answers.outcome.error = Error(Code::kInvalid, "rolled back");
    return answers;
  }

  // Looks at one node.
  void read_once(std::size_t n, std::size_t d, Told& told, bool by_bookmark) {
    Running node = nodes_[n]->running();
    if (!node || !node->cluster.begun()) return;
    std::optional<std::pair<Bookmark, std::uint64_t>> bookmark;
    std::uint64_t at_least = 0;
    {
      std::lock_guard lock(told.mutex);
      at_least = told.most_seen[n];
      if (by_bookmark) bookmark = told.bookmark;
    }
    Answers answers =
        submit(*node->store, database(d),
               {"SELECT count(*), ifnull(max(seq), 0), (SELECT n FROM total), (SELECT id FROM log "
                "ORDER BY seq DESC LIMIT 1) FROM log"},
               false, bookmark ? std::optional(bookmark->first) : std::nullopt)
            .get();
    if (failed(answers) || answers.statements.at(0).rows.size() != 1) return;
    const std::string& row = answers.statements[0].rows[0];
    unsigned long long count = 0, last = 0, total = 0;
    char id[64] = "";
    ASSERT_GE(std::sscanf(row.c_str(), "%llu|%llu|%llu|%63s", &count, &last, &total, id), 3) << row;
    EXPECT_EQ(count, last) << row;
    EXPECT_EQ(count, total) << row;
    EXPECT_GE(count, at_least) << "node " << n << " shows less of " << database(d)
                               << " than it did";
    if (bookmark) EXPECT_GE(count, bookmark->second);
    std::lock_guard lock(told.mutex);
    told.most_seen[n] = std::max<std::uint64_t>(told.most_seen[n], count);
    if (!told.bookmark || count > told.bookmark->second)
      told.bookmark = {answers.outcome.bookmark, count};
    if (count == 0) return;
    auto [place, is_new] = told.seen.try_emplace(count, id);
    if (!is_new) EXPECT_EQ(place->second, id) << "two histories of " << database(d);
  }

  // Until `done`.
  void be_client(std::size_t d, std::size_t which, Told& told, std::mt19937_64 dice,
                 const std::atomic<bool>& done) {
    for (int i = 0; !done; ++i) {
      const std::size_t n = primary().value_or(dice() % nodes_.size());
      Running node = nodes_[n]->running();
      if (!node || !node->cluster.begun()) {
        std::this_thread::yield();
        continue;
      }
      write_once(*node->store, d, told, fmt::format("{}-{}", which, i), dice);
    }
  }
  void be_reader(std::vector<Told>& told, std::mt19937_64 dice, const std::atomic<bool>& done) {
    while (!done) {
      const std::size_t d = dice() % kDatabases;
      read_once(dice() % nodes_.size(), d, told[d], dice() % 4 == 0);
      std::this_thread::sleep_for(std::chrono::microseconds(dice() % 3000));
    }
  }

  void hand_over_somewhere(std::mt19937_64& dice) {
    Running node = nodes_[dice() % nodes_.size()]->running();
    if (node) (void)node->cluster.log().hand_over(0, member_of(static_cast<int>(dice() % 3) + 1));
  }
  // Databases come and go while it happens.
  void change_list(std::mt19937_64& dice) {
    const std::size_t n = primary().value_or(dice() % nodes_.size());
    Running node = nodes_[n]->running();
    if (!node || !node->cluster.begun()) return;
    const std::string which = fmt::format("e{}", dice() % 6);
    if (dice() % 3 == 0) {
      (void)node->store->drop(name(which));
      return;
    }
    if (node->store->create(name(which), {}))
      (void)submit(*node->store, which, {"CREATE TABLE t(a)", "INSERT INTO t VALUES(1)"}, false)
          .get();
  }
  void fill_disk(std::mt19937_64& dice) {
    StoreNode& node = *nodes_[dice() % nodes_.size()];
    FaultFileSystem& disk = disks_.of(node.folder());
    node.tolerated = Code::kFull;
    disk.set_capacity(disk.used_bytes() + dice() % 200'000);
    std::this_thread::sleep_for(std::chrono::milliseconds(dice() % 900));
    disk.set_capacity(UINT64_MAX);
    start_failed();
  }
  void start_failed() {
    for (auto& node : nodes_) {
      if (!node->failed.exchange(false)) continue;
      node->crash();
      node->start();
    }
    connect();
  }
  void one_disaster(std::mt19937_64& dice) {
    const std::size_t n = dice() % nodes_.size();
    switch (dice() % 8) {
      case 0:
        for (auto& node : nodes_) node->stop(dice());
        for (auto& node : nodes_) node->start();
        return connect();
      case 1:
        nodes_[n]->crash();
        nodes_[n]->start();
        return connect();
      case 2:
      case 3: {
        const int to = static_cast<int>(dice() % 3) + 1;
        nodes_[n]->cut(to, true);
        std::this_thread::sleep_for(std::chrono::milliseconds(dice() % 1500));
        return nodes_[n]->cut(to, false);
      }
      case 4:
        return fill_disk(dice);
      case 5:
        for (int i = 0; i < 40; ++i) hand_over_somewhere(dice);
        return;
      default:
        return restart(n, dice() % 4 == 0 ? std::nullopt : std::optional(dice()));
    }
  }

  void check(std::size_t d, Told& told) {
    for (auto& node : nodes_) {
      Store& store = *node->running()->store;
      EXPECT_EQ(rows(store, database(d), "PRAGMA integrity_check"), "ok\n");
      EXPECT_EQ(rows(store, database(d), "SELECT (SELECT count(*) FROM log) = n FROM total"),
                "1\n");
      Answers answers = run(store, database(d), {"SELECT id FROM log ORDER BY seq"});
      const std::vector<std::string>& found = answers.statements.at(0).rows;
      const std::set<std::string> set(found.begin(), found.end());
      EXPECT_EQ(set.size(), found.size());
      for (const std::string& id : told.committed)
        EXPECT_TRUE(set.contains(id)) << id << " is lost";
      for (const std::string& id : told.rejected)
        EXPECT_FALSE(set.contains(id)) << id << " was refused, and is there";
      for (const auto& [at, id] : told.seen) {
        ASSERT_LE(at, found.size()) << id << " was seen";
        EXPECT_EQ(found[at - 1], id);
      }
    }
    fmt::print("{}: {} committed, {} refused, {} unknown, {} states seen\n", database(d),
               told.committed.size(), told.rejected.size(), told.unknown.size(), told.seen.size());
  }

  void attack(std::uint64_t seed, std::uint64_t rounds) {
    std::mt19937_64 dice(seed);
    std::vector<Told> told(kDatabases);
    std::atomic<bool> done = false;
    std::vector<std::thread> threads;
    for (std::size_t d = 0; d < kDatabases; ++d) {
      for (std::size_t c = 0; c < 2; ++c)
        threads.emplace_back(
            [&, d, c, own = dice()] { be_client(d, c, told[d], std::mt19937_64(own), done); });
    }
    for (int i = 0; i < 2; ++i)
      threads.emplace_back([&, own = dice()] { be_reader(told, std::mt19937_64(own), done); });
    threads.emplace_back([&, own = dice()] {
      std::mt19937_64 mine(own);
      while (!done) change_list(mine);
    });
    for (std::uint64_t i = 0; i < rounds; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(dice() % 400));
      one_disaster(dice);
    }
    done = true;
    for (std::thread& thread : threads) thread.join();
    start_failed();
    ASSERT_TRUE(agree()) << describe();
    for (std::size_t d = 0; d < kDatabases; ++d) check(d, told[d]);
  }
};

TEST_F(ClusteredStoreAttackTest, WhatWasAnsweredAndSeenStays) {
  attack(number_from_environment("OFFPRINT_TEST_SEED", 11),
         number_from_environment("OFFPRINT_TEST_ROUNDS", 12));
}

// A write whose outcome is not known may still be decided. What is written upon a state without it
// must not come into the log behind it.
TEST_F(ClusteredStoreAttackTest, NothingIsWrittenBehindAWriteOfUnknownOutcome) {
  ASSERT_TRUE(agree());
  const std::size_t at = primary().value_or(0);
  for (int n = 1; n <= 3; ++n) nodes_[at]->cut(n, true);
  {
    Running node = nodes_[at]->running();
    auto first = submit(*node->store, database(0), {insert("first", 10)}, false);
    ASSERT_TRUE(within(std::chrono::seconds(5), [&] {
      const auto status = node->cluster.log().status(0).member;
      return status.last > status.commit;
    }));
    node->cluster.log().shut_down();
    EXPECT_EQ(first.get().outcome.state, State::kUnknown);
    const Answers second = run(*node->store, database(0), {insert("second", 10)});
    EXPECT_EQ(second.outcome.state, State::kRejected);
  }
  for (int n = 1; n <= 3; ++n) nodes_[at]->cut(n, false);
  restart(at, std::nullopt);
  ASSERT_TRUE(agree());
  EXPECT_EQ(rows(*nodes_[at]->running()->store, database(0),
                 "SELECT count(*) FROM log WHERE id = 'second'"),
            "0\n");
}

// Its databases' files, or its journal, find no room for a while; nobody waits for it.
TEST_F(ClusteredStoreAttackTest, AFollowerWithAFullDiskComesBack) {
  ASSERT_TRUE(agree());
  const std::size_t full = (primary().value_or(0) + 1) % 3;
  FaultFileSystem& disk = disks_.of(nodes_[full]->folder());
  for (const std::uint64_t room : {0U, 20'000U, 300'000U}) {
    disk.set_capacity(disk.used_bytes() + room);
    for (int i = 0; i < 40; ++i)
      ASSERT_TRUE(write(database(0), insert(fmt::format("{}-{}", room, i), 20'000)));
    disk.set_capacity(UINT64_MAX);
    ASSERT_TRUE(agree()) << room << describe();
  }
  EXPECT_EQ(rows(*nodes_[full]->running()->store, database(0), "SELECT count(*) FROM log"),
            "120\n");
}

// Larger than a segment of the journal; others write on meanwhile, and a node dies half-way.
TEST_F(ClusteredStoreAttackTest, ALargeTransactionComesInParts) {
  for (auto& node : nodes_) {
    node->adjust = [](database::StoreOptions& options) { options.journal.segment_size = 8 << 20; };
    node->stop({});
  }
  for (auto& node : nodes_) node->start();
  connect();
  ASSERT_TRUE(agree());
  ASSERT_TRUE(write(database(0), insert("first", 3'900'000)));
  std::size_t taken = 0;
  for (int round = 0; round < 3; ++round) {
    const std::size_t at = primary().value_or(0);
    const std::size_t victim = (at + 1 + static_cast<std::size_t>(round) % 2) % 3;
    Running node = nodes_[at]->running();
    const Lsn before = node->cluster.log().status(0).member.last;
    auto large =
        submit(*node->store, database(0), {insert(fmt::format("l{}", round), 20'000'000)}, false);
    ASSERT_TRUE(within(std::chrono::seconds(30), [&] {
      return node->cluster.log().status(0).member.last.value >= before.value + 5;
    }));
    restart(victim, round == 1 ? std::optional<std::uint64_t>(7) : std::nullopt);
    ASSERT_TRUE(write(database(1), insert(fmt::format("s{}", round), 100)));
    taken += failed(large.get()) ? 0 : 1;
    node.reset();
    ASSERT_TRUE(agree()) << describe();
  }
  EXPECT_EQ(taken, 3U);
  for (auto& each : nodes_) {
    EXPECT_EQ(
        rows(*each->running()->store, database(0), "SELECT count(*), sum(length(filler)) FROM log"),
        "4|63900000\n");
    EXPECT_EQ(rows(*each->running()->store, database(1), "SELECT count(*) FROM log"), "3\n");
  }
}

// What came of it is kept until it is decided, however little is kept otherwise.
TEST_F(ClusteredStoreAttackTest, ALargeTransactionOutlivesRestartsOfAllThatFollow) {
  for (auto& node : nodes_) {
    node->adjust = [](database::StoreOptions& options) {
      options.log_bytes_max = 1 << 18;
      options.checkpoint_frames = 10;
    };
    node->stop({});
  }
  for (auto& node : nodes_) node->start();
  connect();
  ASSERT_TRUE(agree());
  ASSERT_TRUE(write(database(1), insert("begin", 10)));
  const std::size_t at = primary().value_or(0);
  Running node = nodes_[at]->running();
  auto newest = [&] { return node->cluster.log().status(0).member.last; };
  const Lsn before = newest();
  auto large = submit(*node->store, database(0), {insert("large", 40'000'000)}, false);
  for (std::size_t n = 1; n <= 2; ++n) {
    ASSERT_TRUE(
        within(std::chrono::seconds(30), [&] { return newest().value >= before.value + 200 * n; }));
    ASSERT_TRUE(write(database(1), insert(fmt::format("s{}", n), 3'000)));
    restart((at + n) % 3, std::nullopt);
    ASSERT_TRUE(within(std::chrono::seconds(30),
                       [&] { return node->cluster.log().status(0).record.in_sync.size() >= 2; }));
  }
  EXPECT_FALSE(failed(large.get()));
  node.reset();
  ASSERT_TRUE(agree()) << describe();
  for (auto& each : nodes_) {
    EXPECT_EQ(rows(*each->running()->store, database(0), "SELECT sum(length(filler)) FROM log"),
              "40000000\n");
  }
}

// Who sends it is gone before its end: it is nowhere, and what came of it is in nobody's way.
TEST_F(ClusteredStoreAttackTest, ALargeTransactionWhosePrimaryDies) {
  const std::size_t at = primary().value_or(0);
  Running node = nodes_[at]->running();
  const Lsn before = node->cluster.log().status(0).member.last;
  auto large = submit(*node->store, database(0), {insert("lost", 30'000'000)}, false);
  ASSERT_TRUE(within(std::chrono::seconds(30), [&] {
    return node->cluster.log().status(0).member.last.value >= before.value + 5;
  }));
  node.reset();
  nodes_[at]->crash();
  EXPECT_TRUE(failed(large.get()));
  ASSERT_TRUE(write(database(0), insert("after", 2'000'000)));
  nodes_[at]->start();
  connect();
  ASSERT_TRUE(write(database(0), insert("again", 2'000'000)));
  ASSERT_TRUE(agree()) << describe();
  for (auto& each : nodes_) {
    EXPECT_EQ(rows(*each->running()->store, database(0), "SELECT id FROM log ORDER BY seq"),
              "after\nagain\n");
  }
}

// What a node missed is not kept by the others any more. It stays what it was, and says so.
TEST_F(ClusteredStoreAttackTest, ANodeThatMissedTooMuchShowsAnOlderState) {
  for (auto& node : nodes_) {
    node->adjust = [](database::StoreOptions& options) {
      options.log_bytes_max = 1 << 18;
      options.checkpoint_frames = 10;
    };
    node->stop({});
  }
  for (auto& node : nodes_) node->start();
  connect();
  ASSERT_TRUE(write(database(0), insert("first", 10)));
  ASSERT_TRUE(agree());
  const std::size_t away = (primary().value_or(0) + 1) % 3;
  nodes_[away]->stop(std::optional<std::uint64_t>(3));
  for (int i = 0; i < 150; ++i)
    ASSERT_TRUE(write(database(0), insert(fmt::format("w{}", i), 20'000)));
  nodes_[away]->start();
  connect();
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(write(database(0), insert(fmt::format("x{}", i), 10)));
  Running node = nodes_[away]->running();
  if (node->cluster.begun()) {
    EXPECT_EQ(rows(*node->store, database(0), "SELECT id FROM log ORDER BY seq"), "first\n");
  }
  node.reset();
  // The others go on without it, whoever of them is primary.
  for (std::size_t n = 0; n < nodes_.size(); ++n) {
    if (n == away) continue;
    restart(n, n);
    ASSERT_TRUE(write(database(0), insert(fmt::format("y{}", n), 10)));
  }
}

// A node whose disk is too slow to be in sync is told what the others have decided. It shows only
// what its own disk has: the rest would be missed after a power loss.
TEST_F(ClusteredStoreAttackTest, ANodeShowsOnlyWhatItsOwnDiskHas) {
  const std::size_t from = primary().value_or(0);
  const std::size_t slow = (from + 1) % 3;
  ASSERT_TRUE(agree());
  std::atomic<bool> is_stuck = true;
  disks_.of(nodes_[slow]->folder()).set_hook([&](const FaultFileSystem::Call& call) {
    const bool waits = call.operation == FaultFileSystem::Operation::kSync &&
                       call.path.find("journal") != std::string::npos;
    while (waits && is_stuck) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return 0;
  });
  for (int i = 1; i <= 30; ++i)
    ASSERT_TRUE(write(database(0), insert(fmt::format("s{}", i), 100)));  // without the slow one
  const Lsn last = nodes_[from]->running()->cluster.log().status(0).member.commit;
  auto at_slow = [&] { return nodes_[slow]->running()->cluster.log().status(0).member; };
  ASSERT_TRUE(within(std::chrono::seconds(20), [&] { return at_slow().commit >= last; }));
  ASSERT_LT(at_slow().durable, last);
  // Its worker looks whenever it is told of a commit.
  const bool shows = within(std::chrono::seconds(1), [&] {
    return nodes_[slow]->running()->cluster.taken() > at_slow().durable;
  });
  EXPECT_FALSE(shows);
  is_stuck = false;
  ASSERT_TRUE(agree());
  disks_.of(nodes_[slow]->folder()).set_hook(nullptr);
}

}  // namespace
}  // namespace offprint::cluster
