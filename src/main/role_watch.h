#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "base/result.h"
#include "cluster/cluster_node.h"

namespace offprint {

// What only the primary of a cluster does, on a thread of its own.
class RoleWatch {
 public:
  // This node is primary. Called again after a while when it fails. `group`: what all nodes of the
  // cluster may call themselves by, each with more behind it. `forced`: it may not have all that
  // others have written for it.
  using Lead = std::function<Result<>(const std::string& group, bool forced)>;

  // `follow`: it is so no more. Without a node neither is called.
  RoleWatch(cluster::ClusterNode* node, std::string cluster, Lead lead,
            std::function<void()> follow);
  ~RoleWatch() { stop(); }
  // Neither is called any more.
  void stop();

 private:
  void watch();
  bool rest(std::chrono::milliseconds time);

  cluster::ClusterNode* const node_;
  const std::string cluster_;
  const Lead lead_;
  const std::function<void()> follow_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stops_ = false;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace offprint
