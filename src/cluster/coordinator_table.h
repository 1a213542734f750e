#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cluster/coordinator.h"

namespace offprint::cluster {

// A register within this process: what the drivers `mem` and `static` stand on.
// Thread: any.
class RegisterTable {
 public:
  struct State {
    std::int64_t revision = 0;  // the greatest version ever used
    std::map<std::string, RegisterEntry> entries;
  };
  // Makes a state durable before anybody sees it. After a failure nothing is known of the disk, so
  // the swap is of unknown outcome and every later call fails.
  using Save = std::function<Result<>(const State&)>;
  using Listener = std::function<void(const RegisterHint&)>;

  RegisterTable() = default;
  RegisterTable(State state, Save save) : save_(std::move(save)), state_(std::move(state)) {}

  Result<std::vector<RegisterEntry>> list(const std::string& prefix);
  Result<std::optional<RegisterEntry>> read(const std::string& key);
  SwapResult compare_and_swap(const Swap& swap);
  // Sets a key that is never saved; the same value again changes nothing.
  void announce(const std::string& key, const std::string& value);
  // Removes such a key, as a service does whose lease ran out.
  void forget(const std::string& key);

  // `listener` is told of every change of a key with `prefix`, on the thread that makes it and
  // under the table's lock: it only posts. First of all keys that are there.
  std::uint64_t add_listener(std::string prefix, Listener listener);
  void remove_listener(std::uint64_t id);

  // Swaps that a test holds back: nobody has seen them yet.
  void hold(Swap swap);
  std::size_t held();
  // Lands the oldest of them, or lets it be lost.
  SwapResult land_held();
  void drop_held();

 private:
  struct Watcher {
    std::string prefix;
    Listener listener;
  };
  SwapResult swap_locked(const Swap& swap);
  void tell(const RegisterHint& hint);

  const Save save_;
  std::mutex mutex_;
  // Guarded by mutex_.
  State state_;
  std::map<std::string, RegisterEntry> announced_;
  std::optional<Error> failure_;
  std::uint64_t next_listener_ = 0;
  std::map<std::uint64_t, Watcher> listeners_;
  std::vector<Swap> held_;
};

}  // namespace offprint::cluster
