#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "cluster/clustered_store.h"
#include "cluster/peer_connections.h"

namespace offprint::cluster {

// Gives nodes that join, or were away too long, whole databases of this one's store, while it leads
// and writes on: one node after the other, on a thread of its own.
// What is sent: docs/protocol/cluster.md, "A member is filled". Thread: any.
class FillSource {
 public:
  // Both outlive it.
  FillSource(ClusteredStore& cluster, database::Store& store);
  ~FillSource();
  // The node waits for its turn.
  void fill(std::shared_ptr<FillSink> sink);

 private:
  struct Kept {
    ReplicatedLog::Held held;
    std::string node;
    Deadline until;
  };
  void work();
  Result<> fill_now(FillSink& sink);
  Result<> send_database(FillSink& sink, database::Snapshot& snapshot, std::uint64_t id);
  Result<> put(FillSink& sink, const FillFrame& frame);
  void let_go(bool all);

  ClusteredStore& cluster_;
  database::Store& store_;
  std::vector<Kept> kept_;  // of the thread

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<FillSink>> waiting_;  // guarded by mutex_
  bool stopping_ = false;                          // guarded by mutex_
  std::thread thread_;
};

}  // namespace offprint::cluster
