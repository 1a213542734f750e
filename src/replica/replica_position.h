#pragma once

#include <string>

#include "base/result.h"
#include "ltx/types.h"

namespace offprint::replica {

// Where a replica stands, read beside its follower, which may be at work.
struct ReplicaStanding {
  Position position;
  std::string source;  // the URL that it follows
};
// kNotFound: no replica. kBehind: not known now (between two states, or a resync): ask again.
// kInvalid: a note of a newer version.
Result<ReplicaStanding> read_replica_position(const std::string& file);

}  // namespace offprint::replica
