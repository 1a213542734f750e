#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "archive/object_store.h"

namespace offprint::archive {

// The right to write an archive: the object kLeaseKey, taken and prolonged by conditional writes.
// Its holder prolongs it when it writes, so that an idle node costs no request; whoever finds it
// expired may take it. Clocks of nodes may differ by less than kLeaseMs / 2. Thread: any. Blocks.
class Lease {
 public:
  // `owner` is this process alone; `former` are those whose place it takes: the same node before
  // its restart. A copy of the node's files cannot write beside it.
  Lease(ObjectStore& objects, std::string owner, std::vector<std::string> former,
        std::function<std::int64_t()> wall_clock_ms)
      : objects_(objects),
        owner_(std::move(owner)),
        former_(std::move(former)),
        wall_clock_ms_(std::move(wall_clock_ms)) {}

  // It is ours for at least kLeaseMs / 2 now. kConflict: another node has it, with its name and how
  // long.
  Result<> hold();
  // Lets others take it at once.
  void release();

  static constexpr std::int64_t kLeaseMs = 60'000;

 private:
  Result<> take();
  Result<> write(std::int64_t until_ms, const PutOptions& options);

  ObjectStore& objects_;
  const std::string owner_;
  std::vector<std::string> former_;  // none once it was ours; guarded by mutex_
  const std::function<std::int64_t()> wall_clock_ms_;
  std::mutex mutex_;
  std::string version_;        // of our object; guarded by mutex_
  std::int64_t until_ms_ = 0;  // guarded by mutex_
};

inline constexpr const char* kLeaseKey = "_offprint/lease";

}  // namespace offprint::archive
