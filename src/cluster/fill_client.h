#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/file_system.h"
#include "base/result.h"

namespace offprint::cluster {

struct FillRequest {
  std::string cluster, node;  // who asks
  std::string secret;         // of the cluster; empty: it has none
  std::string address;        // of the primary, for other nodes
  std::string directory;      // the data folder
  std::string mark;           // FolderFill::finish()
  // Asked again and again; true: it ends with kUnavailable.
  std::function<bool()> cancelled = [] { return false; };
};

// Fetches all databases of a cluster from its primary: FolderFill::take_over() makes them the
// folder's. Answers how many bytes of pages came. Blocks. kIo, kTimeout: the connection;
// kUnavailable: the other node does not give them now; kForbidden: it does not know the secret.
Result<std::uint64_t> fetch_fill(FileSystem& files, const FillRequest& request);

}  // namespace offprint::cluster
