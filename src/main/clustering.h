#pragma once

#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "cluster/cluster_node.h"
#include "cluster/primary_forwarder.h"
#include "main/settings.h"
#include "server/service.h"

namespace offprint {

struct ClusterOptions {
  std::string cluster;  // empty: a node by itself
  std::string node;
  std::string peer_listen = "127.0.0.1:9081";
  std::string advertise;  // a URL; empty: made of --listen
  std::string secret_file;
  std::string ca_file;  // of the nodes' https
  bool https = false;   // clients' and nodes' requests come by that
  cluster::EtcdOptions etcd;
  std::size_t replicas = 3;
  std::string reads = "primary";
  bool has_guardian = false;
  cluster::GuardianPage* guardian_page = nullptr;  // of a server that has one
};

void add_cluster_settings(Settings& settings, ClusterOptions& options);
// The cluster's secret; empty: it has none. kInvalid: too short; kNotFound, kIo: its file.
Result<std::string> read_secret(const ClusterOptions& options);

// A node's part in its cluster; nothing without a name for that. Outlives the store.
class Clustering {
 public:
  // What comes next.
  enum class Next { kGoOn, kStop /* one of the signals came */, kFill /* prepare() again, anew */ };
  // Before the store is opened: the folder becomes a member's, which may take a while. `listen`: of
  // clients. `anew`: what is in the folder goes. kInvalid: the options.
  Result<Next> prepare(const ClusterOptions& options, const std::string& data,
                       const std::string& listen, bool anew, const sigset_t& signals,
                       database::StoreOptions& store);
  // Afterwards. Returns when the store may be asked.
  Result<Next> start(database::Store& store, const sigset_t& signals);
  bool is_used() const { return node_ != nullptr; }
  // The folder is of no use any more.
  bool needs_fill() { return node_ && node_->needs_fill(); }
  // What signs batons, of which each node has `own`: all nodes of a cluster know each other's.
  server::StreamKey stream_key(const server::StreamKey& own) const;
  // None in no cluster.
  cluster::ClusterNode* node() { return node_.get(); }
  // The service answers as one of several.
  void apply(server::Service& service);
  // This node is to stop: another one shall write, if one can.
  void hand_over();
  void stop();

 private:
  std::string ca_file_;
  bool reads_anywhere_ = false;
  std::unique_ptr<cluster::ClusterNode> node_;
  server::StreamKey stream_key_{};
  std::unique_ptr<cluster::PrimaryForwarder> forwarder_;
};

}  // namespace offprint
