#include <map>
#include <random>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/text_encoding.h"
#include "cluster/coordinator_testing.h"
#include "cluster/etcd_coordinator.h"
#include "tests/interop/etcd/etcd_cluster.h"

// Swaps from several coordinators while members of etcd are killed, held against the history that
// etcd itself keeps.
namespace offprint::testing {
namespace {

using namespace cluster::testing;
using cluster::Coordinator;
using cluster::RegisterEntry;
using cluster::SwapResult;
using Outcome = SwapResult::Outcome;

constexpr int kThreads = 4;
constexpr int kKeys = 2;

struct Attempt {
  std::string key;
  std::string value;  // of this attempt alone
  std::int64_t expected = 0;
  SwapResult result;
};

struct Worker {
  std::vector<Attempt> attempts;
  std::vector<std::string> faults;  // what a reader saw that cannot be
};

// Swaps until `stop`; each value names its attempt.
void work(const cluster::EtcdOptions& options, int number, const std::atomic<bool>& stop,
          Worker& worker) {
  auto made = cluster::create_etcd_coordinator(options);
  Coordinator& mine = **made;
  std::map<std::string, std::int64_t> versions;
  for (int i = 0; !stop; ++i) {
    std::string key = "/storm/" + std::to_string(i % kKeys);
    if (i % 5 == 0) {
      auto entry = read(mine, key, 2000);
      std::int64_t seen = entry && *entry ? (*entry)->version : 0;
      if (entry && seen < versions[key])
        worker.faults.push_back("a read went back from " + std::to_string(versions[key]) + " to " +
                                std::to_string(seen));
      if (entry) versions[key] = seen;
    }
    Attempt attempt{key, std::to_string(number) + "-" + std::to_string(i), versions[key], {}};
    attempt.result = swap(mine, key, attempt.expected, attempt.value, 1000);
    const SwapResult& result = attempt.result;
    if (result.outcome == Outcome::kApplied) versions[key] = result.version;
    if (result.outcome == Outcome::kRefused) {
      std::int64_t current = result.current ? result.current->version : 0;
      if (current < versions[key]) worker.faults.push_back("a refusal went back");
      if (current == attempt.expected) worker.faults.push_back("a refusal of the right version");
      versions[key] = current;
    }
    worker.attempts.push_back(std::move(attempt));
  }
}

// Every value that a key ever had, by version: what a watch from the first revision on says.
std::map<std::int64_t, std::string> history_of(EtcdCluster& etcd, const std::string& key) {
  std::map<std::int64_t, std::string> history;
  std::string encoded;
  append_base64(encoded, as_bytes(key), Base64Padding::kPadded);
  Finished watched =
      run_program({"curl", "--silent", "--no-buffer", "--max-time", "5", "-X", "POST", "-d",
                   R"({"create_request":{"start_revision":"1","key":")" + encoded + R"("}})",
                   etcd.client_url(0) + "/v3/watch"});
  std::size_t begin = 0;
  for (std::size_t end; (end = watched.out.find('\n', begin)) != std::string::npos;
       begin = end + 1) {
    auto line = cluster::parse_etcd_watch(watched.out.substr(begin, end - begin));
    EXPECT_TRUE(line);
    if (!line) continue;
    for (const auto& hint : line->hints) history[hint.version] = hint.value.value_or("(removed)");
  }
  return history;
}

// The model: the history is a chain in which each link is one attempt that expected the one before.
void check_history(const std::map<std::int64_t, std::string>& history,
                   const std::map<std::string, Attempt>& attempts, const std::string& key) {
  std::int64_t before = 0;
  std::map<std::string, int> landed;
  for (const auto& [version, value] : history) {
    auto it = attempts.find(value);
    ASSERT_NE(it, attempts.end()) << "nobody wrote " << value;
    const Attempt& attempt = it->second;
    EXPECT_EQ(attempt.key, key);
    EXPECT_EQ(attempt.expected, before) << value << " was applied over another version";
    EXPECT_EQ(++landed[value], 1) << value << " landed twice";
    EXPECT_TRUE(attempt.result.outcome == Outcome::kApplied ||
                attempt.result.outcome == Outcome::kUnknown)
        << value << " landed, but was told to be refused or failed";
    if (attempt.result.outcome == Outcome::kApplied) {
      EXPECT_EQ(attempt.result.version, version);
    }
    before = version;
  }
  for (const auto& [value, attempt] : attempts) {
    if (attempt.key != key) continue;
    if (attempt.result.outcome == Outcome::kApplied) {
      EXPECT_EQ(landed[value], 1) << value << " was told to be applied and is not there";
    }
    if (attempt.result.outcome == Outcome::kRefused && attempt.result.current) {
      auto it = history.find(attempt.result.current->version);
      ASSERT_NE(it, history.end()) << "a refusal showed a version that never was";
      EXPECT_EQ(it->second, attempt.result.current->value);
    }
  }
}

// One member after the other is killed and started again, in random order.
void torment(EtcdCluster& etcd, int seconds, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  for (Deadline end = in_seconds(seconds); SteadyClock::now() < end;) {
    int member = static_cast<int>(random() % 3);
    bool pauses = random() % 3 == 0;
    auto pause_ms = std::chrono::milliseconds(300 + random() % 1500);
    pauses ? etcd.pause(member) : etcd.kill(member);
    std::this_thread::sleep_for(pause_ms);  // how long it is away
    pauses ? etcd.resume(member) : etcd.start(member);
    etcd.wait_ready();
  }
}

TEST(EtcdStorm, EachVersionHasOneWinnerWhateverDies) {
  int seconds = number_from_environment("OFFPRINT_STORM_S", 20);
  std::uint64_t seed = test_seed();
  EtcdCluster etcd(3);
  etcd.wait_ready();
  std::atomic<bool> stop{false};
  std::vector<Worker> workers(kThreads);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back(
        [&, i] { work(etcd.options(), i, stop, workers[static_cast<std::size_t>(i)]); });
  }
  torment(etcd, seconds, seed);
  stop = true;
  for (std::thread& each : threads) each.join();
  etcd.wait_ready();

  std::map<std::string, Attempt> attempts;
  std::map<Outcome, int> counts;
  for (const Worker& worker : workers) {
    for (const std::string& fault : worker.faults) ADD_FAILURE() << fault;
    for (const Attempt& each : worker.attempts) {
      attempts[each.value] = each;
      ++counts[each.result.outcome];
    }
  }
  std::size_t versions = 0;
  for (int i = 0; i < kKeys; ++i) {
    std::string key = "/storm/" + std::to_string(i);
    auto history = history_of(etcd, key);
    versions += history.size();
    check_history(history, attempts, key);
    auto made = cluster::create_etcd_coordinator(etcd.options());
    auto last = read(**made, key, 10'000);
    ASSERT_TRUE(last && *last);
    EXPECT_EQ((*last)->version, history.rbegin()->first);
    EXPECT_EQ((*last)->value, history.rbegin()->second);
  }
  std::printf("storm: %zu versions; %d applied, %d refused, %d failed, %d unknown\n", versions,
              counts[Outcome::kApplied], counts[Outcome::kRefused], counts[Outcome::kFailed],
              counts[Outcome::kUnknown]);
  EXPECT_GT(counts[Outcome::kApplied], 20);
  EXPECT_GT(counts[Outcome::kRefused], 0);
}

}  // namespace
}  // namespace offprint::testing
