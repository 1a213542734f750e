#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "replica/followed_set.h"
#include "replica/node_follower.h"

namespace offprint::replica {

// Keeps copies of what a FollowedSet names, over one stream, as NodeFollower does of a node's
// databases. Threads of its own. Thread: any.
class InstanceFollower {
 public:
  // `store` and `followed` must outlive it; `options.match` is not used. kInvalid: no such URL.
  static Result<std::unique_ptr<InstanceFollower>> create(NodeFollowerOptions options,
                                                          database::Store& store,
                                                          FollowedSet& followed);
  // Stops.
  virtual ~InstanceFollower() = default;
  virtual void start() = 0;
  // Blocks until what was taken is applied. Idempotent.
  virtual void stop() = 0;
  // What is to be followed has changed.
  virtual void follow_anew() = 0;
  // As NodeFollower::age_ms().
  virtual std::int64_t age_ms(const database::DatabaseName& name) const = 0;
};

}  // namespace offprint::replica
