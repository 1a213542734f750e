#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "base/file_system.h"
#include "cluster/etcd_coordinator.h"
#include "cluster/folder_owner.h"

namespace offprint::cluster {

// How a data folder becomes that of a member of a cluster.
struct JoinOptions {
  std::string cluster, node;
  std::string data;    // the folder; made when absent
  std::string secret;  // of the cluster; empty: it has none
  EtcdOptions etcd;
  // Waits so long, or less; true: give up.
  std::function<bool(std::chrono::milliseconds)> cancelled;
};

// Before the folder is opened. An empty or damaged one is filled with what the cluster has; one of
// a single node begins a cluster that is not there yet. Waits for the coordinator and the primary
// as long as it takes. Nothing: cancelled. kInvalid: the folder is another node's, or has databases
// of its own while the cluster has others, or has to be filled and no other node has everything.
Result<std::optional<FolderOwner>> join_cluster(FileSystem& files, const JoinOptions& options);
// What is in the folder goes; it is filled again, as a new member.
Result<std::optional<FolderOwner>> join_anew(FileSystem& files, const JoinOptions& options);

// What the folder of a member has is of no use, and is filled again at the next start.
Result<> note_damage(FileSystem& files, const std::string& data, const Error& why);

// It has the databases of a single node.
Result<bool> is_single_nodes(FileSystem& files, const std::string& data);

// Whether a folder may be served by a node alone. kInvalid: it is one of a cluster's.
Result<> check_is_alone(FileSystem& files, const std::string& data);

}  // namespace offprint::cluster
