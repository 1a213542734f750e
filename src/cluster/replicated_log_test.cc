#include "cluster/replicated_log.h"

#include <atomic>
#include <cstdlib>

#include "cluster/coordinator_local.h"
#include "cluster/coordinator_table.h"
#include "cluster/replicated_log_testing.h"

namespace offprint::cluster {
namespace {

using namespace std::chrono_literals;
using testing::kGroups;
using testing::member_of;

class ReplicatedLogTest : public testing::ThreeNodes {
 protected:
  void SetUp() override {
    begin([&](const auto& key, const auto& value) { table_->compare_and_swap({key, 0, value}); },
          [this] {
            return create_mem_coordinator(table_, [this, reads = ++coordinators_ == 3](auto&) {
              return RegisterFault{reads && third_is_cut_ ? RegisterFault::Kind::kUnreachable
                                                          : RegisterFault::Kind::kNone};
            });
          });
  }
  std::shared_ptr<RegisterTable> table_ = std::make_shared<RegisterTable>();
  int coordinators_ = 0;
  std::atomic<bool> third_is_cut_ = false;  // node 3 gets hints, and cannot read
};

TEST_F(ReplicatedLogTest, WhatIsCommittedIsOnAllNodes) {
  for (int i = 0; i < 200; ++i) {
    write_surely(static_cast<std::uint32_t>(i) % kGroups, "record " + std::to_string(i));
  }
  check();
}

TEST_F(ReplicatedLogTest, AHandOverLosesNothing) {
  write_surely(0, "first");
  for (int round = 0; round < 10; ++round) {
    int to = 2 + round % 2;
    Deadline until = SteadyClock::now() + 20s;
    for (bool done = false; !done && SteadyClock::now() < until;) {
      for (auto& node : nodes_) done |= node->log()->hand_over(0, member_of(to)).has_value();
      // It may have become primary by itself.
      done |= nodes_[static_cast<std::size_t>(to - 1)]->log()->may_answer(0);
      if (!done) std::this_thread::sleep_for(5ms);
    }
    write_surely(0, "after " + std::to_string(round));
  }
  check();
}

TEST_F(ReplicatedLogTest, AHintWhoseReadFailedIsNotForgotten) {
  write_surely(0, "first");
  auto epoch_at = [&](std::size_t node) { return nodes_[node]->log()->status(0).record.epoch; };
  auto within = [](auto done) {
    for (const Deadline until = SteadyClock::now() + 20s; SteadyClock::now() < until;) {
      if (done()) return true;
      std::this_thread::sleep_for(5ms);
    }
    return false;
  };
  ASSERT_TRUE(within([&] { return epoch_at(2) >= Epoch{1}; }));
  third_is_cut_ = true;
  const Epoch before = epoch_at(2);
  ASSERT_TRUE(within([&] {
    for (std::size_t n : {0U, 1U, 2U}) {  // whoever is primary
      if (nodes_[n]->log()->hand_over(0, member_of(n == 0 ? 2 : 1))) return true;
    }
    return false;
  }));
  write_surely(0, "second");
  EXPECT_EQ(epoch_at(2), before) << "it could not read that";
  third_is_cut_ = false;
  EXPECT_TRUE(within([&] { return epoch_at(2) == epoch_at(0) && epoch_at(2) == epoch_at(1); }))
      << epoch_at(0).value << ", " << epoch_at(1).value << ", " << epoch_at(2).value;
  check();
}

// Many records come in one message, and the disk is slow.
TEST_F(ReplicatedLogTest, ARecordCountsWhenItsOwnDiskHasIt) {
  for (int round = 0; round < 5; ++round) {
    nodes_[2]->stop({});
    for (int i = 0; i < 300; ++i)
      write_surely(0, "round " + std::to_string(round) + ", record " + std::to_string(i));
    nodes_[2]->disk().set_hook([](const FaultFileSystem::Call& call) {
      if (call.operation == FaultFileSystem::Operation::kSync) std::this_thread::sleep_for(10ms);
      return 0;
    });
    start_again(2);
    auto log = nodes_[2]->log();
    const Lsn all = nodes_[0]->log()->status(0).member.commit;
    for (Deadline until = SteadyClock::now() + 20s; SteadyClock::now() < until;) {
      const Lsn durable = log->status(0).member.durable;
      const journal::Lsn written = nodes_[2]->journal().durable_lsn();
      if (auto place = log->find(0, durable)) {
        ASSERT_LT(place->lsn, written) << "record " << durable.value << " is not on the disk";
      }
      if (durable >= all) break;
    }
    nodes_[2]->disk().set_hook(nullptr);
  }
  check();
}

TEST_F(ReplicatedLogTest, ARecordThatCannotBeKeptToIsNotFollowed) {
  write_surely(0, "first");
  const std::string key = RecordKeys{"test"}.group(0);
  auto entry = table_->read(key);
  ASSERT_TRUE(entry && *entry);
  auto record = GroupRecord::parse((*entry)->value);
  ASSERT_TRUE(record);
  record->epoch.value += 100;
  record->primary = member_of(2);
  for (int n = 4; n <= 8; ++n) record->replicas.push_back(member_of(n));
  record->in_sync = record->replicas;
  while (table_->compare_and_swap({key, (*entry)->version, record->to_json()}).outcome !=
         SwapResult::Outcome::kApplied) {
    entry = table_->read(key);  // the nodes changed it meanwhile
  }
  for (auto& node : nodes_) node->stop({});
  for (auto& node : nodes_) node->start();
  for (auto& node : nodes_) connect(*node);
  std::this_thread::sleep_for(1s);
  for (auto& node : nodes_) EXPECT_FALSE(node->log()->append(0, {}));
  write_surely(1, "the other group is not hurt");
}

TEST_F(ReplicatedLogTest, WhatIsDecidedMayBeForgotten) {
  for (int i = 0; i < 300; ++i)
    write_surely(0, "record " + std::to_string(i) + std::string(2000, 'x'));
  std::size_t all = settled(0).size();
  for (auto& node : nodes_) {
    auto needed = node->log()->needed_from();
    ASSERT_TRUE(node->journal().remove_before(needed.value_or(node->journal().end_lsn())));
    node->log()->forget_before(node->journal().segments().front().begin);
    EXPECT_FALSE(node->log()->find(0, Lsn{1})) << "it is gone";
    EXPECT_TRUE(node->log()->find(0, Lsn{all}));
  }
  write_surely(0, "after");
  // Also after a start.
  restart(2, 1);
  restart(1, 1);
  write_surely(0, "after a start");
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
