#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "database/store.h"
#include "server/client_streams.h"
#include "server/http_message.h"
#include "server/http_server.h"
#include "server/payload_cache.h"

namespace offprint::server {

struct ServiceOptions {
  std::string node_name = "local";
  std::string version = "0";                                // of the program
  std::string spool_directory = "/tmp";                     // uploads wait here
  std::uint64_t body_bytes_max = 64 << 20;                  // of a request
  std::uint64_t upload_bytes_max = std::uint64_t{1} << 42;  // of a database file
  std::size_t response_bytes_max = 64 << 20;                // of a result
  int request_timeout_ms = 30'000;                          // statements are interrupted after this
  std::vector<std::string> allowed_origins;                 // of browsers' requests; "*": any
};

// What all routes work with. Outlives the HTTP server and everything submitted to the store.
struct Service {
  database::Store& store;
  ClientStreams& streams;
  ServiceOptions options;
  std::function<HttpCounters()> http_counters = {};  // for /metrics; may be empty
  PayloadCache payloads{};                           // for followers

  // Every local database can be served. From memory.
  bool is_ready() const { return true; }
  Deadline deadline() const {
    return SteadyClock::now() + std::chrono::milliseconds(options.request_timeout_ms);
  }
};

// The position that a read must have reached, from Offprint-Read and Offprint-Bookmark. kInvalid:
// neither "primary", "any" nor a bookmark.
Result<std::optional<Bookmark>> read_position(const HttpRequest& request);

// "Offprint-Bookmark: …\r\nOffprint-Served-By: …\r\n"
std::string answer_headers(const Service& service, const Bookmark& bookmark);

// Answers on a helper thread, for what waits for a disk. Thread: any.
void respond_from_helper(const Service& service, Responder responder,
                         std::function<Response()> make);

}  // namespace offprint::server
