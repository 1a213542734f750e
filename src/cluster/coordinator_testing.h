#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cluster/coordinator.h"

// Coordinators as tests use them: calls that wait.
namespace offprint::cluster::testing {

inline Deadline in_ms(int ms) { return SteadyClock::now() + std::chrono::milliseconds(ms); }

inline Result<std::optional<RegisterEntry>> read(Coordinator& from, const std::string& key,
                                                 int timeout_ms = 5000) {
  std::promise<Result<std::optional<RegisterEntry>>> answer;
  from.read(key, in_ms(timeout_ms), [&](auto result) { answer.set_value(std::move(result)); });
  return answer.get_future().get();
}

inline Result<std::vector<RegisterEntry>> list(Coordinator& from, const std::string& prefix,
                                               int timeout_ms = 5000) {
  std::promise<Result<std::vector<RegisterEntry>>> answer;
  from.list(prefix, in_ms(timeout_ms), [&](auto result) { answer.set_value(std::move(result)); });
  return answer.get_future().get();
}

inline SwapResult swap(Coordinator& at, const std::string& key, std::int64_t expected,
                       const std::string& value, int timeout_ms = 5000) {
  std::promise<SwapResult> answer;
  at.compare_and_swap({key, expected, value}, in_ms(timeout_ms),
                      [&](SwapResult result) { answer.set_value(std::move(result)); });
  return answer.get_future().get();
}

inline Result<> announce(Coordinator& at, const Announcement& announcement, int timeout_ms = 5000) {
  std::promise<Result<>> answer;
  at.announce(announcement, in_ms(timeout_ms),
              [&](Result<> result) { answer.set_value(std::move(result)); });
  return answer.get_future().get();
}

// A swap that must be applied; its version.
inline std::int64_t apply(Coordinator& at, const std::string& key, std::int64_t expected,
                          const std::string& value) {
  SwapResult result = swap(at, key, expected, value);
  EXPECT_EQ(result.outcome, SwapResult::Outcome::kApplied)
      << (result.error ? result.error->message() : "");
  return result.version;
}

// Reads until `wanted` holds of the value; false after ten seconds.
inline bool eventually(Coordinator& from, const std::string& key,
                       const std::function<bool(const std::optional<RegisterEntry>&)>& wanted) {
  for (Deadline end = in_ms(10'000); SteadyClock::now() < end;) {
    auto entry = read(from, key);
    if (entry && wanted(*entry)) return true;
  }
  return false;
}

// Gathers what a watch says.
class Hints {
 public:
  Coordinator::WatchCall call() {
    return [this](const RegisterHint& hint) {
      std::lock_guard lock(mutex_);
      hints_.push_back(hint);
      changed_.notify_all();
    };
  }
  // Whether such a hint came, within ten seconds.
  bool saw(const std::string& key, const std::optional<std::string>& value) {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, in_ms(10'000), [&] {
      for (const RegisterHint& each : hints_) {
        if (each.key == key && each.value == value) return true;
      }
      return false;
    });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<RegisterHint> hints_;
};

}  // namespace offprint::cluster::testing
