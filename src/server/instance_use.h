#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <utility>

#include "base/clock.h"
#include "server/instances.h"

namespace offprint::server {

// Who uses an instance that another node keeps up, or may. Thread: any.
struct InstanceUse {
  std::atomic<int> leases{0};
  std::atomic<bool> goes_on{true};
  std::atomic<Deadline> last{SteadyClock::now()};

  bool is_used(Deadline now, std::chrono::milliseconds rest_after) const {
    return leases > 0 || last.load() + rest_after > now;
  }
  // Of one that was let go just now.
  static std::shared_ptr<InstanceUse> over() {
    auto use = std::make_shared<InstanceUse>();
    use->goes_on = false;
    return use;
  }
};

// A lease of that; it may outlive the host.
class UseLease : public InstanceHost::Lease {
 public:
  explicit UseLease(std::shared_ptr<InstanceUse> use) : use_(std::move(use)) { ++use_->leases; }
  ~UseLease() override {
    use_->last = SteadyClock::now();
    --use_->leases;
  }
  UseLease(const UseLease&) = delete;
  UseLease& operator=(const UseLease&) = delete;
  bool goes_on() const override { return use_->goes_on; }

 private:
  const std::shared_ptr<InstanceUse> use_;
};

}  // namespace offprint::server
