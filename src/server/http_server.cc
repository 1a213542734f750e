#include "server/http_server.h"

#include <algorithm>
#include <charconv>
#include <future>
#include <thread>

#include <sys/resource.h>
#include <sys/socket.h>

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/post.hpp>

#include "base/log.h"

namespace offprint::server {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::string_view kTooManyConnections =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: "
    "80\r\nRetry-After: 1\r\n"
    "Connection: close\r\n\r\n"
    "{\"error\":\"too many connections\",\"message\":\"too many connections\",\"code\":\"BUSY\"}\n";

int default_io_threads() {
  return static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 4u));
}

}  // namespace

HttpServer::HttpServer(HttpServerOptions options, HttpHandler& handler)
    : options_(std::move(options)), handler_(handler) {}

HttpServer::~HttpServer() { stop(); }

Result<> HttpServer::start() {
  OFFPRINT_TRY_ASSIGN(ListenAddress listen, parse_listen_address(options_.address));
  int threads = options_.io_threads > 0 ? options_.io_threads : default_io_threads();
  for (int i = 0; i < threads; ++i) loops_.push_back(std::make_shared<IoLoop>());
  error_code error;
  auto ip = asio::ip::make_address(listen.host, error);
  if (error) return fail(Code::kInvalid, "listen on " + options_.address + ": not an IP address");
  tcp::endpoint endpoint(ip, listen.port);
  acceptor_ = std::make_unique<Acceptor>(loops_[0]->executor());
  accept_pause_ = std::make_unique<asio::steady_timer>(loops_[0]->context());
  acceptor_->open(endpoint.protocol(), error);
  if (!error) acceptor_->set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor_->bind(endpoint, error);
  if (!error) acceptor_->listen(4096, error);
  if (error) {
    acceptor_.reset();
    return fail(Code::kUnavailable, "listen on " + options_.address + ": " + error.message());
  }
  std::uint16_t port = acceptor_->local_endpoint(error).port();
  address_ =
      (ip.is_v6() ? "[" + ip.to_string() + "]" : ip.to_string()) + ":" + std::to_string(port);
  for (auto& loop : loops_) loop->start();
  asio::post(loops_[0]->context(), [this] { accept_next(); });
  return {};
}

void HttpServer::accept_next() {
  if (!acceptor_->is_open()) return;
  std::shared_ptr<IoLoop> loop = least_loaded();
  acceptor_->async_accept(loop->executor(),
                          [this, loop](const error_code& error, Connection::Socket socket) {
                            if (error == asio::error::operation_aborted) return;
                            if (!error) {
                              take(std::move(socket), loop);
                              return accept_next();
                            }
                            // Out of descriptors, most likely: waiting is all that helps.
                            log::warn("accept: {}", error.message());
                            accept_pause_->expires_after(std::chrono::milliseconds(100));
                            accept_pause_->async_wait([this](const error_code& stopped) {
                              if (!stopped) accept_next();
                            });
                          });
}

void HttpServer::take(Connection::Socket socket, const std::shared_ptr<IoLoop>& loop) {
  if (connection_count() >= options_.connections_max) {
    refused_.fetch_add(1, std::memory_order_relaxed);
    if (!options_.tls)
      ::send(socket.native_handle(), kTooManyConnections.data(), kTooManyConnections.size(),
             MSG_NOSIGNAL | MSG_DONTWAIT);
    return;
  }
  auto connection = std::make_shared<Connection>(loop, std::move(socket), handler_, options_.limits,
                                                 options_.tls);
  loop->expect_connection();
  if (loop->is_current()) {
    connection->start();
  } else {
    asio::post(loop->context(), [connection] { connection->start(); });
  }
}

// Who has connected believes that he is heard.
void HttpServer::take_waiting() {
  error_code error;
  acceptor_->non_blocking(true, error);
  while (!error) {
    std::shared_ptr<IoLoop> loop = least_loaded();
    Connection::Socket socket(loop->executor());
    acceptor_->accept(socket, error);
    if (!error) take(std::move(socket), loop);
  }
}

std::shared_ptr<IoLoop> HttpServer::least_loaded() const {
  return *std::min_element(loops_.begin(), loops_.end(), [](const auto& a, const auto& b) {
    return a->connection_count() < b->connection_count();
  });
}

std::size_t HttpServer::connection_count() const {
  std::size_t count = 0;
  for (const auto& loop : loops_) count += loop->connection_count();
  return count;
}

void HttpServer::stop() {
  if (stopping_.exchange(true)) return;
  if (!acceptor_) return;
  std::promise<void> closed;
  asio::post(loops_[0]->context(), [this, &closed] {
    error_code ignored;
    take_waiting();
    acceptor_->close(ignored);
    accept_pause_->cancel();
    closed.set_value();
  });
  closed.get_future().wait();
  // Asked again and again, because an accepted connection may still be on its way to its loop.
  auto close_all = [this](bool now, Deadline until) {
    do {
      for (auto& loop : loops_) {
        // Not shared: what is never run would keep its own loop for ever.
        asio::post(loop->context(), [raw = loop.get(), now, quiet = options_.stop_quiet_ms] {
          if (now) return raw->abort_connections();
          raw->close_connections(SteadyClock::now() - std::chrono::milliseconds(quiet));
        });
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    } while (connection_count() > 0 && SteadyClock::now() < until);
  };
  close_all(false, SteadyClock::now() + std::chrono::milliseconds(options_.stop_timeout_ms));
  close_all(true, Deadline::max());
  for (auto& loop : loops_) loop->stop();
  acceptor_.reset();
  accept_pause_.reset();
}

HttpCounters HttpServer::counters() const {
  HttpCounters sum;
  sum.refused = refused_.load(std::memory_order_relaxed);
  for (const auto& loop : loops_) {
    const LoopCounters& one = loop->counters();
    sum.requests += one.requests.load(std::memory_order_relaxed);
    sum.responses_4xx += one.responses_4xx.load(std::memory_order_relaxed);
    sum.responses_5xx += one.responses_5xx.load(std::memory_order_relaxed);
    sum.bytes_in += one.bytes_in.load(std::memory_order_relaxed);
    sum.bytes_out += one.bytes_out.load(std::memory_order_relaxed);
    sum.accepted += one.accepted.load(std::memory_order_relaxed);
    sum.streams_open += one.streams_open.load(std::memory_order_relaxed);
    sum.timeouts += one.timeouts.load(std::memory_order_relaxed);
    sum.wakeups += one.wakeups.load(std::memory_order_relaxed);
    sum.connections += loop->connection_count();
  }
  return sum;
}

std::uint64_t raise_file_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_cur;
}

Result<ListenAddress> parse_listen_address(const std::string& text) {
  std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) return fail(Code::kInvalid, "'" + text + "' is not HOST:PORT");
  ListenAddress address;
  address.host = text.substr(0, colon);
  std::string_view port = std::string_view(text).substr(colon + 1);
  unsigned number = 0;
  auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (port.empty() || error != std::errc() || end != port.data() + port.size() || number > 65535) {
    return fail(Code::kInvalid, "'" + text + "': the port is no number up to 65535");
  }
  address.port = static_cast<std::uint16_t>(number);
  if (address.host.starts_with('[') && address.host.ends_with(']')) {
    address.host = address.host.substr(1, address.host.size() - 2);
  }
  if (address.host.empty() || address.host == "*") address.host = "0.0.0.0";
  if (address.host == "localhost") address.host = "127.0.0.1";
  error_code bad;
  auto ip = asio::ip::make_address(address.host, bad);
  if (bad) return fail(Code::kInvalid, "'" + text + "': the host is no IP address");
  address.loopback = ip.is_loopback();
  return address;
}

}  // namespace offprint::server
