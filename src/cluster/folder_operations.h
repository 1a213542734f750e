#pragma once

#include <string>

#include "base/file_system.h"
#include "cluster/etcd_coordinator.h"

// What is done with the folder of a node that does not run. Blocks. Cut short, it is begun again.
namespace offprint::cluster {

// Makes the folder of a cluster's last node that of a single node again, with all that it has.
// Nobody else may have a copy. kInvalid: the folder is a single node's; kConflict: other nodes have
// copies, or this one is not their primary; kNotFound: the coordinator does not know the cluster,
// which is no matter with `force`; kUnavailable: it does not answer, or the node runs.
Result<> leave_cluster(FileSystem& files, const std::string& data, const EtcdOptions& etcd,
                       bool force);

// The node is to be primary with what it has, when those are lost that have everything: what they
// acknowledged without it is lost. kConflict: it has no copy; else as above.
Result<> force_primary(FileSystem& files, const std::string& data, const EtcdOptions& etcd);

}  // namespace offprint::cluster
