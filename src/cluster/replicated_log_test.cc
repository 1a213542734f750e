// Three nodes with real journals, on disks that lose power, over real connections.
#include "cluster/replicated_log.h"

#include <atomic>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "base/fault_file_system.h"
#include "cluster/coordinator_local.h"
#include "cluster/coordinator_table.h"
#include "cluster/peer_connections.h"

namespace offprint::cluster {
namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t kGroups = 2;
constexpr GroupMember::Timing kFast{.beacon = Time{20'000},
                                    .lease = Time{200'000},
                                    .grace = Time{300'000},
                                    .eject = Time{200'000},
                                    .stagger = Time{20'000},
                                    .cas_every = Time{20'000}};

class NoListener final : public LogListener {
 public:
  void committed(std::uint32_t, Lsn) override {}
  void changed(std::uint32_t) override {}
};

RecordMember member_of(int node) {
  return {"n" + std::to_string(node), static_cast<std::uint64_t>(node)};
}

// A node and its disk. Thread: start() and stop() one at a time, log() any.
class Node {
 public:
  Node(int number, std::shared_ptr<RegisterTable> table)
      : number_(number), table_(std::move(table)) {}
  ~Node() { stop({}); }

  // Takes the port that it had.
  void start() {
    auto index = std::make_shared<GroupIndex>();
    journal::Options options;
    options.segment_size = 256 << 10;
    auto journal = journal::Journal::open(files_, "journal", options,
                                          [&](const journal::Record& record) -> Result<> {
                                            index->visit(record);
                                            return {};
                                          });
    ASSERT_TRUE(journal) << journal.error().message();
    journal_ = *std::move(journal);
    auto peers = PeerConnections::create({.cluster = "test",
                                          .self = member_of(number_),
                                          .listen = "127.0.0.1:" + std::to_string(port_),
                                          .secret = "of the test"});
    ASSERT_TRUE(peers) << peers.error().message();
    peers_ = *std::move(peers);
    port_ = peers_->port();
    auto log = std::make_shared<ReplicatedLog>(
        ReplicatedLog::Options{.cluster = "test",
                               .self = member_of(number_),
                               .groups = kGroups,
                               .timing = kFast,
                               .on_fatal = [](const Error&) {}},
        *journal_, std::move(*index), create_mem_coordinator(table_), *peers_, listener_);
    peers_->start({.received =
                       [log = log.get()](MemberId from, PeerMessage message) {
                         log->received(from, std::move(message));
                       },
                   .connected = [log = log.get()](MemberId member) { log->connected(member); }});
    std::lock_guard lock(mutex_);
    log_ = std::move(log);
  }

  // `power_loss_seed`: the machine stops; else only the process ends, in order.
  void stop(std::optional<std::uint64_t> power_loss_seed) {
    if (power_loss_seed) files_.power_loss(*power_loss_seed);
    std::weak_ptr<ReplicatedLog> ended;
    {
      std::lock_guard lock(mutex_);
      if (!log_) return;
      log_->shut_down();
      peers_->stop();
      ended = log_;
      log_.reset();
    }
    while (ended.lock()) std::this_thread::yield();  // whoever works with it gives it back
    peers_.reset();
    journal_.reset();
    if (power_loss_seed) files_.restart();
  }

  std::shared_ptr<ReplicatedLog> log() {
    std::lock_guard lock(mutex_);
    return log_;
  }
  journal::Journal& journal() { return *journal_; }
  std::uint16_t port() const { return port_; }
  void connect(const Node& other) {
    peers_->set_peer(member_of(other.number_), "127.0.0.1:" + std::to_string(other.port_));
  }

 private:
  const int number_;
  const std::shared_ptr<RegisterTable> table_;
  FaultFileSystem files_;
  NoListener listener_;
  std::uint16_t port_ = 0;
  std::unique_ptr<journal::Journal> journal_;
  std::unique_ptr<PeerConnections> peers_;
  std::mutex mutex_;
  std::shared_ptr<ReplicatedLog> log_;  // guarded by mutex_
};

// The three of them, and what clients were told.
class ReplicatedLogTest : public testing::Test {
 protected:
  void SetUp() override {
    auto coordinator = create_mem_coordinator(table_);
    for (std::uint32_t i = 0; i < kGroups; ++i) {
      GroupRecord record;
      record.epoch = Epoch{1};
      record.primary = member_of(1);
      for (int n = 1; n <= 3; ++n) record.replicas.push_back(member_of(n));
      record.in_sync = record.replicas;
      record.min_in_sync = 2;
      record.lineage = Lineage::random();
      ASSERT_EQ(
          table_->compare_and_swap({RecordKeys{"test"}.group(i), 0, record.to_json()}).outcome,
          SwapResult::Outcome::kApplied);
    }
    for (int n = 1; n <= 3; ++n) nodes_.push_back(std::make_unique<Node>(n, table_));
    for (auto& node : nodes_) ASSERT_NO_FATAL_FAILURE(node->start());
    for (auto& node : nodes_) connect(*node);
  }
  void TearDown() override {
    for (auto& node : nodes_) node->stop({});
  }

  void connect(Node& node) {
    for (auto& other : nodes_) {
      if (other.get() == &node) continue;
      node.connect(*other);
    }
  }
  void restart(std::size_t index, std::optional<std::uint64_t> power_loss_seed) {
    nodes_[index]->stop(power_loss_seed);
    nodes_[index]->start();
    connect(*nodes_[index]);
  }
  void power_loss_of_all(std::mt19937_64& random) {
    for (auto& node : nodes_) node->stop(random());
    for (auto& node : nodes_) node->start();
    for (auto& node : nodes_) connect(*node);
  }

  // Tries one node after the other until one takes it. kUnknown: it may be there.
  Result<> write(std::uint32_t group, const std::string& text) {
    for (Deadline until = SteadyClock::now() + 20s; SteadyClock::now() < until;) {
      for (auto& node : nodes_) {
        auto log = node->log();
        if (!log) continue;
        journal::Draft draft;
        draft.database_id = 7;
        draft.payload.assign(text.begin(), text.end());
        auto appended = log->append(group, std::move(draft));
        if (!appended) continue;
        auto result = log->wait(*appended, SteadyClock::now() + 3s);
        if (!result) return result;
        std::lock_guard lock(mutex_);
        acknowledged_[group][appended->proposal.lsn.value] = text;
        return {};
      }
      std::this_thread::sleep_for(5ms);
    }
    return fail(Code::kTimeout, "no node took it");
  }

  // What the node has of the group, once all three have the same and everything is committed.
  std::vector<std::string> settled(std::uint32_t group) {
    for (Deadline until = SteadyClock::now() + 60s; SteadyClock::now() < until;) {
      std::set<std::uint64_t> lasts, commits;
      for (auto& node : nodes_) {
        auto status = node->log()->status(group).member;
        lasts.insert(status.last.value);
        commits.insert(status.commit.value);
      }
      if (lasts.size() == 1 && lasts == commits) return texts(0, group);
      std::this_thread::sleep_for(20ms);
    }
    ADD_FAILURE() << "the nodes do not come to the same log";
    return {};
  }
  std::vector<std::string> texts(std::size_t node, std::uint32_t group) {
    std::vector<std::string> texts;
    auto log = nodes_[node]->log();
    for (std::uint64_t i = 1; i <= log->status(group).member.last.value; ++i) {
      auto place = log->find(group, Lsn{i});
      if (!place) {
        ADD_FAILURE() << place.error().message();
        continue;
      }
      auto record = nodes_[node]->journal().read(*place);
      EXPECT_TRUE(record);
      if (record) texts.emplace_back(as_text(record->payload));
    }
    return texts;
  }

  // All have the same, what was acknowledged stands where it was, nothing stands there twice.
  void check() {
    for (std::uint32_t group = 0; group < kGroups; ++group) {
      std::vector<std::string> found = settled(group);
      for (std::size_t n = 1; n < nodes_.size(); ++n) EXPECT_EQ(texts(n, group), found);
      std::set<std::string> once(found.begin(), found.end());
      EXPECT_EQ(once.size(), found.size()) << "a record stands there twice";
      for (const auto& [lsn, text] : acknowledged_[group]) {
        ASSERT_LE(lsn, found.size()) << text << " was acknowledged and is lost";
        EXPECT_EQ(found[lsn - 1], text);
      }
    }
  }

  std::shared_ptr<RegisterTable> table_ = std::make_shared<RegisterTable>();
  std::vector<std::unique_ptr<Node>> nodes_;
  std::mutex mutex_;
  std::map<std::uint32_t, std::map<std::uint64_t, std::string>> acknowledged_;  // by mutex_
};

TEST_F(ReplicatedLogTest, WhatIsCommittedIsOnAllNodes) {
  for (int i = 0; i < 200; ++i) {
    auto written = write(static_cast<std::uint32_t>(i) % kGroups, "record " + std::to_string(i));
    ASSERT_TRUE(written) << written.error().message();
  }
  check();
}

TEST_F(ReplicatedLogTest, AHandOverLosesNothing) {
  ASSERT_TRUE(write(0, "first"));
  for (int round = 0; round < 10; ++round) {
    int to = 2 + round % 2;
    Deadline until = SteadyClock::now() + 20s;
    for (bool done = false; !done && SteadyClock::now() < until;) {
      for (auto& node : nodes_) done |= node->log()->hand_over(0, member_of(to)).has_value();
      // It may have become primary by itself.
      done |= nodes_[static_cast<std::size_t>(to - 1)]->log()->may_answer(0);
      if (!done) std::this_thread::sleep_for(5ms);
    }
    ASSERT_TRUE(write(0, "after " + std::to_string(round)));
  }
  check();
}

TEST_F(ReplicatedLogTest, WhatIsDecidedMayBeForgotten) {
  for (int i = 0; i < 300; ++i)
    ASSERT_TRUE(write(0, "record " + std::to_string(i) + std::string(2000, 'x')));
  std::size_t all = settled(0).size();
  for (auto& node : nodes_) {
    auto needed = node->log()->needed_from();
    ASSERT_TRUE(node->journal().remove_before(needed.value_or(node->journal().end_lsn())));
    node->log()->forget_before(node->journal().segments().front().begin);
    EXPECT_FALSE(node->log()->find(0, Lsn{1})) << "it is gone";
    EXPECT_TRUE(node->log()->find(0, Lsn{all}));
  }
  ASSERT_TRUE(write(0, "after"));
  // Also after a start.
  restart(2, 1);
  restart(1, 1);
  ASSERT_TRUE(write(0, "after a start"));
  for (Deadline until = SteadyClock::now() + 30s; SteadyClock::now() < until;) {
    if (nodes_[2]->log()->status(0).member.commit.value >= all + 2) break;
    std::this_thread::sleep_for(10ms);
  }
  EXPECT_GE(nodes_[2]->log()->status(0).member.commit.value, all + 2);
}

// OFFPRINT_TEST_ROUNDS: of somebody losing power, or the group, while clients write.
TEST_F(ReplicatedLogTest, NothingAcknowledgedIsLostWhenNodesLosePower) {
  const char* asked = std::getenv("OFFPRINT_TEST_ROUNDS");
  const char* seed = std::getenv("OFFPRINT_TEST_SEED");
  std::mt19937_64 random(seed != nullptr ? std::strtoull(seed, nullptr, 10) : 1);
  std::atomic<bool> done = false;
  std::atomic<int> unknown = 0;
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([&, c] {
      for (int i = 0; !done; ++i) {
        auto written = write(static_cast<std::uint32_t>(i) % kGroups,
                             "client " + std::to_string(c) + " record " + std::to_string(i));
        if (!written) ++unknown;
      }
    });
  }
  for (int round = asked != nullptr ? std::atoi(asked) : 10; round > 0; --round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100 + random() % 500));
    std::size_t node = random() % nodes_.size();
    switch (random() % 5) {
      case 0:
        restart(node, std::nullopt);
        break;
      case 2:
        power_loss_of_all(random);
        break;
      case 1:
        (void)nodes_[node]->log()->hand_over(0, member_of(1 + static_cast<int>(random() % 3)));
        break;
      default:
        restart(node, random());
    }
  }
  done = true;
  for (std::thread& client : clients) client.join();
  std::size_t acknowledged = acknowledged_[0].size() + acknowledged_[1].size();
  EXPECT_GT(acknowledged, 0U);
  check();
  std::printf("%zu acknowledged, %d unknown\n", acknowledged, unknown.load());
}

}  // namespace
}  // namespace offprint::cluster
