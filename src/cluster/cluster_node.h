#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cluster/cluster_control.h"
#include "cluster/clustered_store.h"
#include "cluster/etcd_coordinator.h"
#include "cluster/fill_source.h"
#include "cluster/guardian_page.h"
#include "cluster/peer_connections.h"
#include "cluster/roster.h"

namespace offprint::cluster {

// A node of a cluster, as `offprint serve --cluster` runs it: the other nodes, and what they decide
// for its store.
//
// Life: join_cluster(), create(), give common_log() to the store and open that, start(), and stop()
// before the store ends; this lives longer than the store. Thread: any, after start().
class ClusterNode final : public ClusterControl {
 public:
  struct Options {
    std::string cluster;
    RecordMember self;            // as the folder says …
    std::optional<Epoch> begins;  // … FolderOwner::begins, too
    std::string peer_listen;      // HOST:PORT
    std::string url;              // for clients and other nodes
    std::string secret;           // of all nodes of the cluster
    EtcdOptions etcd;
    std::size_t replicas = 3;
    std::function<void(const Error&)> on_fatal;
    // Another node began the cluster, and this one has databases of its own: it ends, and its
    // folder is in no cluster.
    std::function<void(const Error&)> on_refused;
    GuardianPage* guardian = nullptr;  // none; outlives it
  };
  // kInvalid: the options. kIo.
  static Result<std::unique_ptr<ClusterNode>> create(Options options);
  ~ClusterNode() override;

  database::CommonLog& common_log() { return *store_side_; }
  Result<> start(database::Store& store);
  // The databases are there, and what was committed is in them. Until then nothing may be asked of
  // the store.
  bool has_all();
  // It cannot go on with the folder that it has: join_anew().
  bool needs_fill();
  void stop();
  // This node is to stop, and is not primary: waits until the others do not wait for it any more,
  // for a moment at most.
  void leave();

  // This node writes.
  bool is_primary();

  // --- ClusterControl; interactive transactions have up to 2 s to end, writes wait
  ClusterStatus status() override;
  bool is_of_use() override;
  Result<> switch_over(const std::string& to) override;
  Result<> remove(const std::string& node) override;

  // How long ago it was last known to have all that the primary had.
  std::int64_t age_ms();
  // Where the primary answers. Nothing: not known at the moment, or it is this one and it does not.
  std::optional<std::string> primary_url();

 private:
  // A change of primary takes less.
  static constexpr std::chrono::seconds kOfUseAfter{5};
  explicit ClusterNode(Options options) : options_(std::move(options)) {}
  bool has_other_primary();
  bool reaches_primary();
  bool try_hand_over(const std::vector<RecordMember>& candidates);

  const Options options_;
  std::unique_ptr<PeerConnections> peers_;
  std::unique_ptr<ClusteredStore> store_side_;
  std::unique_ptr<FillSource> fills_;
  std::unique_ptr<Roster> roster_;
  database::Store* store_ = nullptr;
  std::mutex handing_over_;
  std::atomic<bool> leaving_ = false;
  std::atomic<Deadline> of_use_until_ = SteadyClock::now() + kOfUseAfter;
};

}  // namespace offprint::cluster
