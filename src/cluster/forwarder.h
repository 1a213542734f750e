#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "cluster/tunnel.h"

namespace offprint::cluster {

struct ForwarderOptions {
  std::string url;      // http://HOST[:PORT] of the other node; https too
  std::string ca_file;  // whose certificates are trusted; empty: the system's
  int connect_timeout_ms = 2'000;
  int answer_timeout_ms = 60'000;
  int idle_ms = 20'000;               // an unused connection is closed after this
  std::size_t connections_max = 256;  // further requests wait
  std::size_t answer_bytes_max = 256 << 20;
};

struct ForwardedRequest {
  std::string method;
  std::string target;  // path and query
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
};
struct ForwardedAnswer {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers;  // without those of the connection
  std::string body;
};

// The answer to a request for another protocol; `tunnel` is null unless its status is 101.
struct OpenedTunnel {
  ForwardedAnswer answer;
  std::unique_ptr<Tunnel> tunnel;
};

// Sends requests to another node, each at most once, and hands back its answers. A thread and
// kept-alive connections of its own. Thread: any.
class Forwarder {
 public:
  // kInvalid: no such URL.
  static Result<std::unique_ptr<Forwarder>> create(ForwarderOptions options);
  // Stops: what waits is answered kUnavailable or kUnknown.
  virtual ~Forwarder() = default;
  // `done` is called exactly once, on the forwarder's thread; it must be quick. kUnavailable: it
  // was not sent, or not to its end. kUnknown: it was, and no answer came.
  virtual void send(ForwardedRequest request,
                    std::function<void(Result<ForwardedAnswer>)> done) = 0;
  // The same for a request with Upgrade and Connection, on a connection of its own. Tunnels end
  // before the forwarder.
  virtual void open_tunnel(ForwardedRequest request,
                           std::function<void(Result<OpenedTunnel>)> done) = 0;
};

}  // namespace offprint::cluster
