#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "archive/archived_history.h"
#include "archive/archiver.h"
#include "archive/named_objects.h"
#include "archive/prover.h"
#include "base/result.h"
#include "cluster/cluster_control.h"
#include "cluster/forwarder.h"
#include "database/store.h"
#include "feed/feeds.h"
#include "replica/node_follower.h"
#include "server/client_streams.h"
#include "server/d1_imports.h"
#include "server/followers.h"
#include "server/http_message.h"
#include "server/http_server.h"
#include "server/jobs.h"
#include "server/payload_cache.h"
#include "tail/tail_status.h"

namespace offprint::publication {
class Publications;
}

namespace offprint::server {

class Authenticator;
class Revocations;

struct ServiceOptions {
  std::string node_name = "local";
  std::string primary;                                      // the URL that is followed; empty: none
  std::string version = "0";                                // of the program
  std::string spool_directory = "/tmp";                     // uploads wait here
  std::uint64_t body_bytes_max = 64 << 20;                  // of a request
  std::uint64_t upload_bytes_max = std::uint64_t{1} << 42;  // of a database file
  std::size_t response_bytes_max = 64 << 20;                // of a result
  std::uint64_t cursor_bytes_max = 1 << 30;                 // of a cursor's results
  std::uint64_t spool_bytes_max = std::uint64_t{4} << 30;   // of all cursors' results on disk
  int request_timeout_ms = 30'000;                          // statements are interrupted after this
  int socket_idle_ms = 75'000;  // a WebSocket from which nothing was heard is closed after this
  bool host_label = false;      // at the root, the first label of Host names the database
  std::vector<std::string> allowed_origins;  // of browsers' requests; "*": any
};

// What all routes work with. Outlives the HTTP server and everything submitted to the store.
struct Service {
  database::Store& store;
  ClientStreams& streams;
  ServiceOptions options;
  std::function<HttpCounters()> http_counters = {};  // for /metrics; may be empty
  PayloadCache payloads{};                           // for followers
  // Of a node that has copies: how old one is, and the way to the primary.
  std::function<std::int64_t(const database::DatabaseName&)> copy_age_ms = {};
  std::function<replica::NodeFollower::Status()> follower_status = {};
  std::function<archive::Archiver::Status()> archive_status = {};  // empty: nothing is archived
  // Of databases that follow a program's own file; empty: there are none.
  std::function<std::vector<tail::TailStatus>()> tails = {};
  std::function<std::optional<tail::TailStatus>(const std::string& name)> tail_of = {};
  // Older states that the archive has of a lineage, before a transaction, so many at most, newest
  // first; blocks. Empty: there is no archive.
  std::function<Result<std::vector<archive::ArchivedMoment>>(
      const database::DatabaseName&, const Lineage&, TxId before, std::size_t limit)>
      archived_moments = {};
  // What led to each of these changed, or why that is not known; blocks, as restoring one does.
  std::function<std::vector<Result<database::TransactionDetails>>(
      const database::DatabaseName&, const std::vector<archive::ArchivedMoment>&)>
      archived_details = {};
  // Makes a database of what the archive has under its name; blocks. Empty: there is no archive.
  std::function<Result<>(const database::DatabaseName&)> create_from_archive = {};
  publication::Publications* publications = nullptr;  // null: of a node that follows another one
  // The state of its source that an instance of a publication has reached.
  std::function<std::optional<Bookmark>(const database::DatabaseName&)> source_of = {};
  archive::NamedObjects* objects = nullptr;  // of HA SNAPSHOT and HA RESTORE; null: none
  std::function<archive::Prover::Status()> prover_status = {};  // empty: nothing is proven
  cluster::Forwarder* forwarder = nullptr;
  // Of a node of a cluster, at this moment; empty: it is in none.
  std::function<bool()> is_follower = {};
  cluster::ClusterControl* cluster = nullptr;  // null: it is in none
  bool keeps_publications() const { return publications != nullptr && !has_copies(); }
  bool has_copies() const { return is_follower ? is_follower() : copy_age_ms != nullptr; }
  std::atomic<std::uint64_t> spooled_bytes{0};  // in files, by server/spool.h
  std::atomic<std::size_t> spooled_files{0};    // the same
  Authenticator* authenticator = nullptr;       // null: nobody is asked for a token
  Revocations* revocations = nullptr;           // set when `authenticator` is
  d1::Imports d1_imports{};                     // uploads over D1's interface
  Jobs jobs{};                                  // stopped before the store goes
  feed::Feeds feeds{store};                     // the same
  Followers followers{};                        // of instances of publications

  std::atomic<bool> stopping{false};  // others are to be asked from now on

  // Every local database can be served, and will be. From memory.
  bool is_ready() const { return !stopping; }
  Deadline deadline() const {
    return SteadyClock::now() + std::chrono::milliseconds(options.request_timeout_ms);
  }
};

// Which copies may answer a request (each protocol has its own words for it), and what its sender
// may do.
struct ReadMode {
  bool primary = false;                               // only the primary
  std::optional<Bookmark> at_least;                   // any copy that has reached it
  std::optional<database::Moment> as_of;              // an earlier state; the rest does not count
  std::shared_ptr<const database::SqlRights> rights;  // empty: everything
  bool may_break = false;                             // publications
  void apply(database::Request& request) const {
    request.needs_primary = primary;
    request.at_least = at_least;
    request.as_of = as_of;
    request.rights = rights;
    request.may_break = may_break;
  }
};
// From Offprint-At, Offprint-Read, Offprint-Break and Offprint-Bookmark; without them what the
// node's options say. kInvalid: no moment; neither "primary", "any" nor a bookmark.
Result<ReadMode> read_mode(const Service& service, const database::DatabaseName& name,
                           const HttpRequest& request);

// Who answers for a database here.
struct Standing {
  bool primary = true;
  std::int64_t age_ms = 0;  // of a copy: since it was last known to have all that the primary had
};
Standing standing(const Service& service, const database::DatabaseName& name);

// "Offprint-Bookmark: …\r\nOffprint-Served-By: …\r\n", and of a copy "Offprint-Age-Ms: …\r\n".
std::string answer_headers(const Service& service, const database::DatabaseName& name,
                           const Bookmark& bookmark);

// The error of a node that has copies only.
Error not_primary(std::string_view why);

// Answers from a job of that kind, for what takes long: it has a thread of its own. Thread: any.
void respond_from_job(Service& service, const char* kind, const database::DatabaseName& name,
                      Responder responder, std::function<Result<Response>()> make);
// Answers on a helper thread, for what waits for a disk. Thread: any.
void respond_from_helper(const Service& service, Responder responder,
                         std::function<Response()> make);

}  // namespace offprint::server
