#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "server/connection.h"
#include "server/http_message.h"

namespace offprint::server {

struct HttpServerOptions {
  std::string address =
      "127.0.0.1:8080";                  // HOST:PORT; port 0 takes a free one; [::1]:8080 for IPv6
  int io_threads = 0;                    // 0: one a core, at most 4
  std::size_t connections_max = 20'000;  // beyond it 503 and close
  int stop_timeout_ms = 10'000;          // for requests that run when stop() is called
  // Then a connection without a request is closed once it was unused for so long. Its client may be
  // sending one just now, and would never know what became of it.
  int stop_quiet_ms = 0;
  ConnectionLimits limits;
  std::shared_ptr<TlsCredentials> tls;  // empty: plain HTTP
};

// Sums over all loops.
struct HttpCounters {
  std::uint64_t requests = 0, responses_4xx = 0, responses_5xx = 0, bytes_in = 0, bytes_out = 0,
                accepted = 0, refused = 0, connections = 0, streams_open = 0, timeouts = 0,
                wakeups = 0;
};

// Listens and serves on I/O threads of its own, one loop each; a connection stays on the loop it
// was given. Thread: any; start and stop once each.
class HttpServer {
 public:
  // `handler` must outlive the server.
  HttpServer(HttpServerOptions options, HttpHandler& handler);
  ~HttpServer();

  // kUnavailable with what the system said when the address cannot be listened on.
  Result<> start();
  // "127.0.0.1:8080", with the real port. After start().
  const std::string& address() const { return address_; }
  // Stops accepting, lets running requests finish for stop_timeout_ms, then cuts. Answers say that
  // the connection closes. Blocks.
  // Idempotent.
  void stop();
  HttpCounters counters() const;

 private:
  using Acceptor = boost::asio::basic_socket_acceptor<boost::asio::ip::tcp, IoLoop::Executor>;

  void accept_next();
  void take_waiting();
  void take(Connection::Socket socket, const std::shared_ptr<IoLoop>& loop);
  std::shared_ptr<IoLoop> least_loaded() const;
  std::size_t connection_count() const;

  const HttpServerOptions options_;
  HttpHandler& handler_;
  std::vector<std::shared_ptr<IoLoop>> loops_;
  std::unique_ptr<Acceptor> acceptor_;                       // lives on loop 0
  std::unique_ptr<boost::asio::steady_timer> accept_pause_;  // on loop 0
  std::string address_;
  std::atomic<std::uint64_t> refused_{0};
  std::atomic<bool> stopping_{false};
};

// Raises the limit of open files to what the system allows; returns the new limit.
std::uint64_t raise_file_limit();
// Splits "HOST:PORT" ("[::1]:8080", ":8080"); kInvalid otherwise.
struct ListenAddress {
  std::string host;
  std::uint16_t port = 0;
  bool loopback = false;
};
Result<ListenAddress> parse_listen_address(const std::string& text);

}  // namespace offprint::server
