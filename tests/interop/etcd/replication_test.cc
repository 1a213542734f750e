#include <random>

#include <gtest/gtest.h>

#include "cluster/coordinator_testing.h"
#include "cluster/etcd_coordinator.h"
#include "cluster/replicated_log_testing.h"
#include "tests/interop/etcd/etcd_cluster.h"

// Three nodes whose groups' records are in stock etcd: it decides who is who, and is not needed for
// anything else.
namespace offprint::testing {
namespace {

using namespace std::chrono_literals;
using cluster::Coordinator;
using Role = cluster::GroupMember::Role;

std::unique_ptr<Coordinator> open(const EtcdCluster& etcd) {
  auto made = cluster::create_etcd_coordinator(etcd.options());
  EXPECT_TRUE(made) << made.error().message();
  return *std::move(made);
}

class EtcdReplication : public cluster::testing::ThreeNodes {
 protected:
  void start(EtcdCluster& etcd) {
    etcd.wait_ready();
    auto first = open(etcd);
    begin([&](const std::string& key,
              const std::string& value) { cluster::testing::apply(*first, key, 0, value); },
          [&] { return open(etcd); });
    write_surely(0, "first");
  }
  std::size_t primary_of(std::uint32_t group) {
    std::optional<std::size_t> primary;
    EXPECT_TRUE(within(30s, [&] {
      for (std::size_t i = 0; i < nodes_.size() && !primary; ++i) {
        auto log = nodes_[i]->log();
        if (log && log->status(group).member.role == Role::kPrimary) primary = i;
      }
      return primary.has_value();
    })) << "nobody is primary";
    return primary.value_or(0);
  }
  template <class Done>
  bool within(std::chrono::seconds time, Done done) {
    for (Deadline until = SteadyClock::now() + time; SteadyClock::now() < until;) {
      if (done()) return true;
      std::this_thread::sleep_for(10ms);
    }
    return done();
  }
};

TEST_F(EtcdReplication, WithEtcdAwayWritesGoOnAndOnlyChangesWait) {
  EtcdCluster etcd(1);
  start(etcd);
  ASSERT_TRUE(within(30s, [&] {
    return nodes_[primary_of(0)]->log()->status(0).member.view.in_sync.size() == 3;
  }));
  etcd.kill(0);
  for (int i = 0; i < 300; ++i) {
    auto written = write(0, "without etcd " + std::to_string(i));
    ASSERT_TRUE(written) << written.error().message();
  }
  // A member in sync goes: nobody can be left out, so the group stands still and says so …
  std::size_t primary = primary_of(0);
  std::size_t gone = (primary + 1) % 3;
  nodes_[gone]->stop(7);
  auto& log = *nodes_[primary]->log();
  EXPECT_TRUE(within(10s, [&] { return log.status(0).member.role == Role::kBlocked; }));
  EXPECT_FALSE(log.may_answer(0));
  EXPECT_EQ(log.append(0, {}).error().code(), Code::kUnavailable);
  // … until etcd is back.
  etcd.start(0);
  write_surely(0, "etcd is back, and two are enough");
  start_again(gone);
  ASSERT_TRUE(within(30s, [&] {
    return nodes_[primary_of(0)]->log()->status(0).member.view.in_sync.size() == 3;
  })) << "it is taken back in";
  check();
}

TEST_F(EtcdReplication, NothingIsLostWhoeverDies) {
  const char* seconds = std::getenv("OFFPRINT_STORM_S");
  EtcdCluster etcd(3);
  start(etcd);
  std::atomic<bool> done = false;
  std::vector<std::thread> clients;
  for (int c = 0; c < 3; ++c) {
    clients.emplace_back([&, c] {
      for (int i = 0; !done; ++i) {
        (void)write(static_cast<std::uint32_t>(i) % cluster::testing::kGroups,
                    "client " + std::to_string(c) + " record " + std::to_string(i));
      }
    });
  }
  std::mt19937_64 random(5);
  Deadline until =
      SteadyClock::now() + std::chrono::seconds(seconds != nullptr ? std::atoi(seconds) : 20);
  while (SteadyClock::now() < until) {
    int member = static_cast<int>(random() % 3);
    switch (random() % 4) {
      case 0:
        etcd.kill(member);
        std::this_thread::sleep_for(std::chrono::milliseconds(random() % 2000));
        etcd.start(member);
        break;
      case 1:
        etcd.pause(member);
        std::this_thread::sleep_for(std::chrono::milliseconds(random() % 1500));
        etcd.resume(member);
        break;
      case 2:
        restart(random() % 3, std::nullopt);
        break;
      default:
        restart(random() % 3, random());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 500));
  }
  done = true;
  for (std::thread& client : clients) client.join();
  EXPECT_GT(acknowledged_[0].size() + acknowledged_[1].size(), 100U);
  check();
}

}  // namespace
}  // namespace offprint::testing
