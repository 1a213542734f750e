#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cluster/coordinator_testing.h"

// What every driver of the coordinator must do, whatever is behind it: for tests.
namespace offprint::cluster::testing {

struct Contract {
  // Another coordinator of the same register; the same one where there can be one only.
  std::function<std::shared_ptr<Coordinator>()> open;
  std::string prefix;  // of all keys, new
};

using Outcome = SwapResult::Outcome;

inline void check_swaps(const Contract& contract) {
  auto one = contract.open(), other = contract.open();
  std::string key = contract.prefix + "swap";
  auto absent = read(*one, key);
  ASSERT_TRUE(absent) << absent.error().message();
  EXPECT_FALSE(*absent);
  SwapResult early = swap(*one, key, 7, "too early");
  EXPECT_EQ(early.outcome, Outcome::kRefused);
  EXPECT_FALSE(early.current);
  std::int64_t first = apply(*one, key, 0, "first");
  EXPECT_GE(first, 1);
  SwapResult again = swap(*other, key, 0, "second creator");
  ASSERT_EQ(again.outcome, Outcome::kRefused);
  ASSERT_TRUE(again.current);
  EXPECT_EQ(*again.current, (RegisterEntry{key, "first", first}));
  std::int64_t second = apply(*other, key, first, "second");
  EXPECT_GT(second, first);
  EXPECT_EQ(swap(*one, key, first, "stale").outcome, Outcome::kRefused);
  std::int64_t same = apply(*one, key, second, "second");
  EXPECT_GT(same, second) << "the same value is a change too";
  auto now = read(*other, key);
  ASSERT_TRUE(now && *now);
  EXPECT_EQ(**now, (RegisterEntry{key, "second", same}));
}

inline void check_lists(const Contract& contract) {
  auto one = contract.open();
  std::string prefix = contract.prefix + "list/";
  auto none = list(*one, prefix);
  ASSERT_TRUE(none) << none.error().message();
  EXPECT_TRUE(none->empty());
  std::vector<RegisterEntry> wanted;
  for (const char* name : {"a", "b", "b0", "c\xff"}) {
    std::string key = prefix + name;
    wanted.push_back({key, name, apply(*one, key, 0, name)});
  }
  apply(*one, contract.prefix + "list0", 0, "a neighbour");
  auto all = list(*one, prefix);
  ASSERT_TRUE(all);
  EXPECT_EQ(*all, wanted);
  auto some = list(*one, prefix + "b");
  ASSERT_TRUE(some);
  EXPECT_EQ(some->size(), 2u);
  auto last = list(*one, prefix + "c\xff");
  ASSERT_TRUE(last);
  EXPECT_EQ(last->size(), 1u);
}

inline void check_bytes(const Contract& contract) {
  auto one = contract.open();
  std::string every;
  for (int byte = 0; byte < 256; ++byte) every += static_cast<char>(byte);
  std::string key = contract.prefix + "bytes" + every;
  std::int64_t version = apply(*one, key, 0, every);
  auto got = read(*one, key);
  ASSERT_TRUE(got && *got);
  EXPECT_EQ((*got)->value, every);
  version = apply(*one, key, version, "");
  version = apply(*one, key, version, std::string(kRegisterValueMax, 'x'));
  got = read(*one, key);
  ASSERT_TRUE(got && *got);
  EXPECT_EQ((*got)->value.size(), kRegisterValueMax);
}

inline void check_limits(const Contract& contract) {
  auto one = contract.open();
  auto nameless = read(*one, "");
  ASSERT_FALSE(nameless);
  EXPECT_EQ(nameless.error().code(), Code::kInvalid);
  SwapResult big = swap(*one, contract.prefix, 0, std::string(kRegisterValueMax + 1, 'x'));
  ASSERT_EQ(big.outcome, Outcome::kFailed);
  EXPECT_EQ(big.error->code(), Code::kTooLarge);
  EXPECT_EQ(swap(*one, std::string(kRegisterKeyMax + 1, 'k'), 0, "").outcome, Outcome::kFailed);
}

inline void check_watch(const Contract& contract) {
  auto one = contract.open(), other = contract.open();
  std::string prefix = contract.prefix + "watch/";
  std::int64_t version = apply(*one, prefix + "old", 0, "was there");
  Hints hints;
  {
    auto watcher = contract.open();
    watcher->watch(prefix, hints.call());
    EXPECT_TRUE(hints.saw(prefix + "old", "was there"));
    apply(*other, prefix + "old", version, "changed");
    EXPECT_TRUE(hints.saw(prefix + "old", "changed"));
    apply(*one, prefix + "new", 0, "made");
    EXPECT_TRUE(hints.saw(prefix + "new", "made"));
    one.reset();
    other.reset();
  }  // a coordinator that is shared would tell `hints` after its end
}

inline void check_announcements(const Contract& contract) {
  auto one = contract.open();
  std::string key = contract.prefix + "node/n1", second = contract.prefix + "node/n2";
  auto done = announce(*one, {key, "here", 2000});
  ASSERT_TRUE(done) << done.error().message();
  auto there = read(*one, key);
  ASSERT_TRUE(there && *there);
  EXPECT_EQ((*there)->value, "here");
  ASSERT_TRUE(announce(*one, {key, "moved", 2000}));
  ASSERT_TRUE(announce(*one, {second, "also here", 2000}));
  there = read(*one, key);
  ASSERT_TRUE(there && *there);
  EXPECT_EQ((*there)->value, "moved");
  auto both = list(*one, contract.prefix + "node/");
  ASSERT_TRUE(both);
  EXPECT_EQ(both->size(), 2u);
}

// Each version of a counter has exactly one winner, and none is lost.
inline void check_contention(const Contract& contract) {
  constexpr int kThreads = 4, kSwaps = 25;
  std::string key = contract.prefix + "counter";
  std::atomic<int> lost{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      auto mine = contract.open();
      std::int64_t version = 0;
      int value = 0;
      for (int done = 0; done < kSwaps;) {
        SwapResult result = swap(*mine, key, version, std::to_string(value + 1));
        if (result.outcome == Outcome::kApplied) {
          ++done;
          version = result.version;
          ++value;
        } else if (result.outcome == Outcome::kRefused && result.current) {
          version = result.current->version;
          value = std::stoi(result.current->value);
        } else {
          ++lost;
          return;
        }
      }
    });
  }
  for (std::thread& each : threads) each.join();
  EXPECT_EQ(lost, 0);
  auto mine = contract.open();
  auto end = read(*mine, key);
  ASSERT_TRUE(end && *end);
  EXPECT_EQ((*end)->value, std::to_string(kThreads * kSwaps));
}

// Calls that are under way when a coordinator ends are answered, each once.
inline void check_end(const Contract& contract) {
  constexpr int kCalls = 50;
  std::atomic<int> answers{0};
  auto one = contract.open();
  for (int i = 0; i < kCalls; ++i) {
    std::string key = contract.prefix + "end" + std::to_string(i);
    one->read(key, in_ms(5000), [&](const auto&) { ++answers; });
    one->compare_and_swap({key, 0, "x"}, in_ms(5000), [&](const SwapResult&) { ++answers; });
    one->list(key, in_ms(5000), [&](const auto&) { ++answers; });
    one->announce({key + "a", "x", 2000}, in_ms(5000), [&](const auto&) { ++answers; });
  }
  one.reset();
  EXPECT_EQ(answers, 4 * kCalls);
}

inline void check_all(const Contract& contract) {
  check_swaps(contract);
  check_lists(contract);
  check_bytes(contract);
  check_limits(contract);
  check_watch(contract);
  check_announcements(contract);
  check_contention(contract);
}

}  // namespace offprint::cluster::testing
