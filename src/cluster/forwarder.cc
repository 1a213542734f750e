#include "cluster/forwarder.h"

#include <deque>
#include <optional>
#include <thread>

#include <sys/socket.h>

#include <fmt/format.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>

#include "base/clock.h"
#include "base/log.h"

namespace offprint::cluster {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Executor = asio::io_context::executor_type;
using Awaitable = asio::awaitable<void>;
using PlainStream = beast::tcp_stream;
using TlsStream = beast::ssl_stream<beast::tcp_stream>;

struct Upstream {
  std::string host;
  std::string port;
  std::string base;  // path before every target; without a slash at the end
  bool tls = false;
};

Result<Upstream> parse_upstream(const std::string& url) {
  Upstream upstream;
  std::string_view rest = url;
  if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else if (rest.starts_with("https://")) {
    rest.remove_prefix(8);
    upstream.tls = true;
  } else {
    return fail(Code::kInvalid, fmt::format("not the URL of a node: {} (http://HOST:PORT)", url));
  }
  std::size_t slash = rest.find('/');
  std::string_view authority = rest.substr(0, slash);
  if (slash != std::string_view::npos) upstream.base = rest.substr(slash);
  while (upstream.base.ends_with('/')) upstream.base.pop_back();
  std::size_t bracket = authority.find(']');
  std::size_t colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  std::string_view host = authority.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  upstream.host = host;
  upstream.port = colon == std::string_view::npos ? (upstream.tls ? "443" : "80")
                                                  : std::string(authority.substr(colon + 1));
  if (upstream.host.empty() || upstream.port.empty() ||
      upstream.host.find_first_of("@?# \r\n") != std::string::npos) {
    return fail(Code::kInvalid, fmt::format("not the URL of a node: {} (http://HOST:PORT)", url));
  }
  return upstream;
}

// One connection to the other node.
struct Link {
  explicit Link(asio::io_context& io) : plain(std::make_unique<PlainStream>(io)) {}
  Link(asio::io_context& io, asio::ssl::context& context)
      : tls(std::make_unique<TlsStream>(io, context)) {}
  PlainStream& bottom() { return tls ? beast::get_lowest_layer(*tls) : *plain; }
  // Nothing came on it, and it is open: the other side did not close it.
  bool is_quiet() {
    char byte = 0;
    ssize_t got = ::recv(bottom().socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
  }

  std::unique_ptr<PlainStream> plain;
  std::unique_ptr<TlsStream> tls;
  beast::flat_buffer buffer;
  Deadline unused_since{};
};

bool is_of_the_connection(std::string_view name) {
  for (std::string_view own : {"connection", "keep-alive", "transfer-encoding", "content-length",
                               "date", "server", "upgrade", "trailer", "te"}) {
    if (beast::iequals(own, name)) return true;
  }
  return false;
}

class ForwarderImpl final : public Forwarder {
 public:
  ForwarderImpl(ForwarderOptions options, Upstream upstream)
      : options_(std::move(options)), upstream_(std::move(upstream)) {}
  ~ForwarderImpl() override {
    asio::post(io_, [this] {
      stopping_ = true;
      for (Link* link : in_use_) link->bottom().close();
      idle_.clear();
      work_.reset();
    });
    thread_.join();
  }

  Result<> start() {
    error_code error;
    if (upstream_.tls) {
      tls_.set_verify_mode(asio::ssl::verify_peer);
      if (options_.ca_file.empty()) {
        tls_.set_default_verify_paths(error);
      } else {
        tls_.load_verify_file(options_.ca_file, error);
      }
      if (error) return fail(Code::kInvalid, options_.ca_file + ": " + error.message());
    }
    thread_ = std::thread([this] { io_.run(); });
    return {};
  }

  void send(ForwardedRequest request, std::function<void(Result<ForwardedAnswer>)> done) override {
    auto job = std::make_shared<Job>(Job{std::move(request), std::move(done)});
    asio::post(io_, [this, job] {
      waiting_.push_back(job);
      start_waiting();
    });
  }

 private:
  struct Job {
    ForwardedRequest request;
    std::function<void(Result<ForwardedAnswer>)> done;
  };

  void start_waiting() {
    while (!waiting_.empty() && running_ < options_.connections_max) {
      std::shared_ptr<Job> job = std::move(waiting_.front());
      waiting_.pop_front();
      ++running_;
      asio::co_spawn(io_, run(std::move(job)), asio::detached);
    }
  }

  Awaitable run(std::shared_ptr<Job> job) {
    std::optional<Result<ForwardedAnswer>> answer;
    try {
      co_await exchange(*job, answer);
    } catch (const std::exception& error) {
      answer.emplace(fail(Code::kUnknown, error.what()));
    }
    --running_;
    job->done(*std::move(answer));
    start_waiting();
  }

  std::shared_ptr<Link> take_idle() {
    Deadline oldest = SteadyClock::now() - std::chrono::milliseconds(options_.idle_ms);
    while (!idle_.empty() && idle_.front()->unused_since < oldest) idle_.pop_front();
    while (!idle_.empty()) {
      std::shared_ptr<Link> link = std::move(idle_.back());
      idle_.pop_back();
      if (link->is_quiet()) return link;
    }
    return nullptr;
  }

  Awaitable connect(std::shared_ptr<Link>& link, std::string& failure) {
    error_code error;
    auto token = asio::redirect_error(asio::use_awaitable, error);
    tcp::resolver resolver(io_);
    tcp::resolver::results_type addresses =
        co_await resolver.async_resolve(upstream_.host, upstream_.port, token);
    if (error) {
      failure = error.message();
      co_return;
    }
    link = upstream_.tls ? std::make_shared<Link>(io_, tls_) : std::make_shared<Link>(io_);
    link->bottom().expires_after(std::chrono::milliseconds(options_.connect_timeout_ms));
    co_await link->bottom().async_connect(addresses, token);
    if (!error) link->bottom().socket().set_option(tcp::no_delay(true), error);
    if (!error && link->tls) {
      SSL_set_tlsext_host_name(link->tls->native_handle(), upstream_.host.c_str());
      link->tls->set_verify_callback(asio::ssl::host_name_verification(upstream_.host));
      co_await link->tls->async_handshake(asio::ssl::stream_base::client, token);
    }
    if (error) {
      failure = error.message();
      link.reset();
    }
  }

  // Not sent, unknown, or the answer.
  Awaitable exchange(Job& job, std::optional<Result<ForwardedAnswer>>& answer) {
    std::shared_ptr<Link> link = take_idle();
    if (link == nullptr) {
      std::string failure;
      if (!stopping_) co_await connect(link, failure);
      if (link == nullptr) {
        answer.emplace(
            fail(Code::kUnavailable, fmt::format("the primary {} cannot be reached: {}",
                                                 options_.url, stopping_ ? "any more" : failure)));
        co_return;
      }
    }
    in_use_.push_back(link.get());
    if (link->tls) {
      co_await exchange_on(*link->tls, *link, job, answer);
    } else {
      co_await exchange_on(*link->plain, *link, job, answer);
    }
    std::erase(in_use_, link.get());
    if (link->bottom().socket().is_open() && !stopping_) {
      link->bottom().expires_never();
      link->unused_since = SteadyClock::now();
      idle_.push_back(std::move(link));
    }
  }

  template <class Stream>
  Awaitable exchange_on(Stream& stream, Link& link, Job& job,
                        std::optional<Result<ForwardedAnswer>>& answer) {
    http::request<http::string_body> request;
    request.method_string(job.request.method);
    request.target(upstream_.base + job.request.target);
    request.version(11);
    request.set(http::field::host, upstream_.host + ":" + upstream_.port);
    for (const auto& [name, value] : job.request.headers) request.insert(name, value);
    request.body() = std::move(job.request.body);
    request.prepare_payload();
    error_code error;
    auto token = asio::redirect_error(asio::use_awaitable, error);
    link.bottom().expires_after(std::chrono::milliseconds(options_.answer_timeout_ms));
    co_await http::async_write(stream, request, token);
    http::response_parser<http::string_body> parser;
    parser.body_limit(options_.answer_bytes_max);
    if (request.method() == http::verb::head) parser.skip(true);
    if (!error) co_await http::async_read(stream, link.buffer, parser, token);
    if (error) {
      link.bottom().close();
      answer.emplace(
          fail(Code::kUnknown,
               fmt::format("the primary {} gave no answer ({}): what was sent may or may "
                           "not have happened",
                           options_.url, error.message())));
      co_return;
    }
    auto& response = parser.get();
    ForwardedAnswer given;
    given.status = static_cast<int>(response.result_int());
    for (const auto& field : response) {
      std::string_view name(field.name_string().data(), field.name_string().size());
      if (is_of_the_connection(name)) continue;
      given.headers.emplace_back(name, std::string(field.value().data(), field.value().size()));
    }
    given.body = std::move(response.body());
    if (!response.keep_alive()) link.bottom().close();
    answer.emplace(std::move(given));
  }

  const ForwarderOptions options_;
  const Upstream upstream_;
  asio::io_context io_{1};
  std::optional<asio::executor_work_guard<Executor>> work_{io_.get_executor()};
  asio::ssl::context tls_{asio::ssl::context::tls_client};

  // Of the thread.
  std::deque<std::shared_ptr<Job>> waiting_;
  std::deque<std::shared_ptr<Link>> idle_;  // longest unused first
  std::vector<Link*> in_use_;
  std::size_t running_ = 0;
  bool stopping_ = false;

  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<Forwarder>> Forwarder::create(ForwarderOptions options) {
  OFFPRINT_TRY_ASSIGN(Upstream upstream, parse_upstream(options.url));
  auto forwarder = std::make_unique<ForwarderImpl>(std::move(options), std::move(upstream));
  OFFPRINT_TRY(forwarder->start());
  return forwarder;
}

}  // namespace offprint::cluster
