#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/result.h"
#include "database/store.h"

namespace offprint::replica {

struct NodeFollowerOptions {
  std::string url;                         // http://HOST[:PORT] of the node that is followed
  std::vector<std::string> match = {"*"};  // names, or prefixes with * at the end
  std::string token;                       // sent as Authorization: Bearer
  std::string ca_file;                     // PEM; empty: the system's certificates
  std::string spool_directory;             // large transactions wait here
  int connect_timeout_ms = 5'000;
  int silence_max_ms = 3'000;  // three heartbeats missed: connect again
  int answer_timeout_ms = 60'000;
  int retry_min_ms = 50;  // doubled at each failure, with jitter, …
  int retry_max_ms = 3'000;
  std::size_t memory_max = 64 << 20;  // transactions that wait to be applied
  FileSystem* files = &FileSystem::real();
  // Called on the follower's thread for each token that the other node has revoked, at each
  // connection for all of them; may block. An error ends the connection. May be empty.
  std::function<Result<>(const database::Revocation&)> on_revocation = {};
};

// Keeps the databases of a store (StoreOptions::copies) equal to another node's: one stream for all
// of them, transactions applied as they come, pages fetched where a copy is too old or differs; new
// databases appear once they are whole, dropped ones go. Threads of its own. Thread: any.
class NodeFollower {
 public:
  // `store` must outlive it. kInvalid: no such URL.
  static Result<std::unique_ptr<NodeFollower>> create(NodeFollowerOptions options,
                                                      database::Store& store);
  // Stops.
  virtual ~NodeFollower() = default;
  virtual void start() = 0;
  // Blocks until what was taken is applied. Idempotent.
  virtual void stop() = 0;

  // How long ago the copy was last known to have all that its primary had (by this machine's clock;
  // after a start: since its newest transaction).
  virtual std::int64_t age_ms(const database::DatabaseName& name) const = 0;
  struct Status {
    bool connected = false;
    std::uint64_t databases = 0;      // followed now
    std::uint64_t transactions = 0;   // applied since the start …
    std::uint64_t bytes = 0;          // … in so many bytes
    std::uint64_t copies = 0;         // snapshots and differences taken
    std::uint64_t waiting_bytes = 0;  // received and not applied yet
    std::int64_t heard_ms_ago = 0;    // since anything came from the other node
    std::string error;                // why it is not connected
  };
  virtual Status status() const = 0;
};

}  // namespace offprint::replica
