#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "ltx/types.h"

namespace offprint::cluster {

// What a node knows of its cluster at the moment.
struct ClusterStatus {
  struct Node {
    std::string name;
    std::string url;  // for clients; empty: not heard of
    bool in_sync = false;
  };
  std::string primary;      // node; empty: not known
  std::vector<Node> nodes;  // that have copies
  Epoch epoch;
  Lineage lineage;  // of the cluster
  std::int64_t min_in_sync = 1;
  bool forced = false;  // the last change of primary; what was committed may have been cut
};

// What those who look after a cluster ask of one of its nodes. Thread: any; all but status() block.
class ClusterControl {
 public:
  virtual ~ClusterControl() = default;
  virtual ClusterStatus status() = 0;
  // Requests that only the primary answers are answered here or passed on, or were some seconds
  // ago.
  virtual bool is_of_use() = 0;
  // Gives being primary to another node in sync, to that one if it has a name. kNotPrimary,
  // kUnavailable: there was none in time; kNotFound: no such node is in sync.
  virtual Result<> switch_over(const std::string& to) = 0;
  // The node, which does not run any more, has no copy and is not waited for. kNotFound: it has
  // none; kConflict: it runs, or is in sync.
  virtual Result<> remove(const std::string& node) = 0;
};

}  // namespace offprint::cluster
