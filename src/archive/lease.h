#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "archive/object_store.h"
#include "base/clock.h"

namespace offprint::archive {

// Whose archive it is: the object kLeaseKey, taken by conditional writes. It does not expire: a
// node that is idle, or stopped, keeps its archive, and another one takes it only when it is told
// to. Its holder looks now and then whether it still has it. Thread: any. Blocks.
class Lease {
 public:
  // `owner` is this process alone; `former` are those whose place it takes: the same node before
  // its restart. A copy of the node's files cannot write beside it. So are all whose name begins
  // with `group`, unless that is empty: nodes of a cluster, of which one is primary. `taken` is
  // called when it became ours, within hold(): no former one has it any more.
  Lease(ObjectStore& objects, std::string owner, std::vector<std::string> former, std::string group,
        bool take_over, std::chrono::milliseconds looked_at_max, std::function<void()> taken = {})
      : objects_(objects),
        owner_(std::move(owner)),
        looked_at_max_(looked_at_max),
        group_(std::move(group)),
        taken_(std::move(taken)),
        former_(std::move(former)),
        take_over_(take_over) {}

  // It was ours at most `looked_at_max` ago. kConflict: another node has it, with its name.
  Result<> hold();

 private:
  Result<> take();

  ObjectStore& objects_;
  const std::string owner_;
  const std::chrono::milliseconds looked_at_max_;
  const std::string group_;
  const std::function<void()> taken_;
  std::mutex mutex_;
  // State below is protected by mutex_.
  std::vector<std::string> former_;  // none once it was ours
  bool take_over_;                   // the same
  std::string version_;              // of our object
  SteadyClock::time_point looked_at_;
};

inline constexpr const char* kLeaseKey = "_offprint/lease";

}  // namespace offprint::archive
