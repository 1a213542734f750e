#include "cluster/forwarder.h"

#include <deque>
#include <optional>
#include <thread>

#include <fmt/format.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http.hpp>

#include "cluster/link.h"

namespace offprint::cluster {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using Executor = asio::io_context::executor_type;
using Awaitable = asio::awaitable<void>;

constexpr int kSwitchingProtocols = 101;

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

  void open_tunnel(ForwardedRequest request,
                   std::function<void(Result<OpenedTunnel>)> done) override {
    auto job = std::make_shared<TunnelJob>(TunnelJob{std::move(request), std::move(done)});
    asio::post(io_, [this, job] { asio::co_spawn(io_, open(job), asio::detached); });
  }

 private:
  struct Job {
    ForwardedRequest request;
    std::function<void(Result<ForwardedAnswer>)> done;
  };
  struct TunnelJob {
    ForwardedRequest request;
    std::function<void(Result<OpenedTunnel>)> done;
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
    std::shared_ptr<Link> link = take_idle();
    co_await ask(job->request, link, answer);
    put_back(std::move(link));
    --running_;
    job->done(*std::move(answer));
    start_waiting();
  }

  Awaitable open(std::shared_ptr<TunnelJob> job) {
    std::optional<Result<ForwardedAnswer>> answer;
    std::shared_ptr<Link> link;
    co_await ask(job->request, link, answer);
    if (!*answer) {
      put_back(std::move(link));
      co_return job->done(fail(answer->error()));
    }
    OpenedTunnel opened{**std::move(answer), nullptr};
    if (opened.answer.status == kSwitchingProtocols && !stopping_) {
      auto forget = [this, used = link.get()] { std::erase(in_use_, used); };
      opened.tunnel = make_tunnel(io_, std::move(link), std::move(forget));
    } else {
      put_back(std::move(link));
    }
    job->done(std::move(opened));
  }

  // Over the link, or a new one, which is handed back; null when there is none.
  Awaitable ask(ForwardedRequest& request, std::shared_ptr<Link>& link,
                std::optional<Result<ForwardedAnswer>>& answer) {
    try {
      if (link == nullptr) co_await connect(link, answer);
      if (link != nullptr) co_await exchange(*link, request, answer);
    } catch (const std::exception& error) {
      answer.emplace(fail(Code::kUnknown, error.what()));
      if (link != nullptr) link->bottom().close();
    }
  }

  std::shared_ptr<Link> take_idle() {
    Deadline oldest = SteadyClock::now() - std::chrono::milliseconds(options_.idle_ms);
    while (!idle_.empty() && idle_.front()->unused_since < oldest) idle_.pop_front();
    while (!idle_.empty()) {
      std::shared_ptr<Link> link = std::move(idle_.back());
      idle_.pop_back();
      if (!link->is_quiet()) continue;
      in_use_.push_back(link.get());
      return link;
    }
    return nullptr;
  }

  // Null: there was none.
  void put_back(std::shared_ptr<Link> link) {
    if (link == nullptr) return;
    std::erase(in_use_, link.get());
    if (!link->is_open() || stopping_) return;
    link->bottom().expires_never();
    link->unused_since = SteadyClock::now();
    idle_.push_back(std::move(link));
  }

  // A link, or the answer that there is none.
  Awaitable connect(std::shared_ptr<Link>& link, std::optional<Result<ForwardedAnswer>>& answer) {
    std::string failure = stopping_ ? "any more" : "";
    auto made = std::make_shared<Link>(io_, upstream_.tls ? &tls_ : nullptr);
    if (!stopping_) co_await made->connect(upstream_, options_.connect_timeout_ms, failure);
    if (failure.empty()) {
      in_use_.push_back(made.get());
      link = std::move(made);
      co_return;
    }
    answer.emplace(fail(Code::kUnavailable, fmt::format("the primary {} cannot be reached: {}",
                                                        options_.url, failure)));
  }

  Awaitable exchange(Link& link, ForwardedRequest& request,
                     std::optional<Result<ForwardedAnswer>>& answer) {
    return link.with_stream(
        [&](auto& stream) { return exchange_on(stream, link, request, answer); });
  }

  // Unknown, or the answer.
  template <class Stream>
  Awaitable exchange_on(Stream& stream, Link& link, ForwardedRequest& given,
                        std::optional<Result<ForwardedAnswer>>& answer) {
    http::request<http::string_body> request;
    request.method_string(given.method);
    request.target(upstream_.base + given.target);
    request.version(11);
    request.set(http::field::host, upstream_.host + ":" + upstream_.port);
    for (const auto& [name, value] : given.headers) request.insert(name, value);
    request.body() = std::move(given.body);
    request.prepare_payload();
    error_code error;
    auto token = asio::redirect_error(asio::use_awaitable, error);
    link.bottom().expires_after(std::chrono::milliseconds(options_.answer_timeout_ms));
    co_await http::async_write(stream, request, token);
    if (error) {
      // Without its end nobody can have begun with it.
      link.bottom().close();
      answer.emplace(fail(Code::kUnavailable, fmt::format("the primary {} took no request: {}",
                                                          options_.url, error.message())));
      co_return;
    }
    http::response_parser<http::string_body> parser;
    parser.body_limit(options_.answer_bytes_max);
    if (request.method() == http::verb::head) parser.skip(true);
    co_await http::async_read(stream, link.buffer, parser, token);
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
    ForwardedAnswer got;
    got.status = static_cast<int>(response.result_int());
    for (const auto& field : response) {
      std::string_view name(field.name_string().data(), field.name_string().size());
      if (is_of_the_connection(name)) continue;
      got.headers.emplace_back(name, std::string(field.value().data(), field.value().size()));
    }
    got.body = std::move(response.body());
    if (got.status != kSwitchingProtocols && !response.keep_alive()) link.bottom().close();
    answer.emplace(std::move(got));
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
