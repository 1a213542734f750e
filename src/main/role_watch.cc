#include "main/role_watch.h"

#include <utility>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/log.h"

namespace offprint {
namespace {

constexpr std::chrono::milliseconds kLookEvery{100};
constexpr std::chrono::seconds kLeadAgain{5};

}  // namespace

RoleWatch::RoleWatch(cluster::ClusterNode* node, std::string cluster, Lead lead,
                     std::function<void()> follow)
    : node_(node),
      cluster_(std::move(cluster)),
      lead_(std::move(lead)),
      follow_(std::move(follow)) {
  if (node_ != nullptr) thread_ = std::thread([this] { watch(); });
}

// Whether it is to go on.
bool RoleWatch::rest(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  return !wake_.wait_for(lock, time, [&] { return stops_; });
}

void RoleWatch::watch() {
  bool led = false;
  std::string last_error;
  do {
    const bool leads = node_->is_primary();
    if (!leads && std::exchange(led, false)) follow_();
    if (!leads || led) continue;
    const cluster::ClusterStatus status = node_->status();
    auto done =
        lead_(fmt::format("cluster {} {} ", cluster_, to_hex(status.lineage.bytes)), status.forced);
    led = done.has_value();
    if (done) continue;
    if (std::exchange(last_error, done.error().message()) != done.error().message())
      log::error("{}; trying on", last_error);
    if (!rest(kLeadAgain)) return;
  } while (rest(kLookEvery));
}

void RoleWatch::stop() {
  {
    std::lock_guard lock(mutex_);
    stops_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

}  // namespace offprint
