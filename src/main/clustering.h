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
  cluster::EtcdOptions etcd;
  std::size_t replicas = 3;
};

void add_cluster_settings(Settings& settings, ClusterOptions& options);

// A node's part in its cluster; nothing without a name for that. Outlives the store.
class Clustering {
 public:
  // Before the store is opened. `listen`: of clients. kInvalid: the options.
  Result<> prepare(const ClusterOptions& options, const std::string& data,
                   const std::string& listen, database::StoreOptions& store);
  // Afterwards. Returns when the store may be asked; false: one of `signals` came first.
  Result<bool> start(database::Store& store, const sigset_t& signals);
  // What signs batons, of which each node has `own`: all nodes of a cluster know each other's.
  server::StreamKey stream_key(const server::StreamKey& own) const;
  // The service answers as one of several.
  void apply(server::Service& service);
  // This node is to stop: another one shall write, if one can.
  void hand_over();
  void stop();

 private:
  std::unique_ptr<cluster::ClusterNode> node_;
  server::StreamKey stream_key_{};
  std::unique_ptr<cluster::PrimaryForwarder> forwarder_;
};

}  // namespace offprint
