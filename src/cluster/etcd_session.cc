#include "cluster/etcd_session.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/log.h"

namespace offprint::cluster {
namespace {

using std::chrono::milliseconds;

constexpr int kTokenDeadlineMs = 5000;
constexpr int kTokensMax = 2;  // new ones in one call
constexpr int kBackOffMs = 50;
constexpr int kBackOffMaxMs = 400;
constexpr std::string_view kNotEnabled = "authentication is not enabled";

}  // namespace

struct EtcdSession::Active {
  std::uint64_t id = 0;
  EtcdCall call;
  Done done;  // null: answered
  std::optional<EtcdHttp::Id> exchange;
  std::size_t endpoint = 0;  // of the exchange
  std::string token;         // that it carries
  CoordinatorLoop::TimerId deadline_timer{};
  std::optional<Error> last_error;
  std::size_t failures = 0;
  int tokens = 0;
};

EtcdSession::EtcdSession(CoordinatorLoop& loop, EtcdHttp& http, const EtcdOptions& options)
    : loop_(loop), http_(http), options_(options) {
  OFFPRINT_ASSERT(!options_.endpoints.empty());
}

bool EtcdSession::needs_token(const Active& active) const {
  return !options_.user.empty() && !has_token_ && active.call.path != kEtcdAuthenticate;
}

void EtcdSession::call(EtcdCall call, Done done) {
  if (ended_) return done({*ended_, false, ""});
  if (call.deadline <= SteadyClock::now())
    return done({Error(Code::kTimeout, "the deadline has passed"), false, ""});
  auto active = std::make_shared<Active>();
  active->id = ++next_id_;
  active->call = std::move(call);
  active->done = std::move(done);
  active_[active->id] = active;
  active->deadline_timer = loop_.at(active->call.deadline, [this, active] {
    bool sent = false;
    if (active->exchange) {
      sent = http_.stop(*active->exchange);
      leave_endpoint(active->endpoint);
    }
    std::string text = "etcd did not answer in time";
    if (active->last_error) text += ": " + active->last_error->message();
    Code code = active->last_error && !sent ? Code::kUnavailable : Code::kTimeout;
    finish(active, {Error(code, text), active->call.at_most_once && sent, ""});
  });
  attempt(active);
}

void EtcdSession::wait_for_token(const ActivePointer& active) {
  waiting_.push_back([this, active](std::optional<Error> error) {
    if (!error) return attempt(active);
    if (error->code() == Code::kUnauthorized || error->code() == Code::kForbidden)
      return finish(active, {std::move(error), false, ""});
    active->last_error = std::move(error);
    loop_.at(SteadyClock::now() + milliseconds(kBackOffMaxMs), [this, active] { attempt(active); });
  });
  fetch_token();
}

void EtcdSession::attempt(const ActivePointer& active) {
  if (!active->done) return;
  if (needs_token(*active)) return wait_for_token(active);
  EtcdExchange exchange;
  std::size_t endpoint = endpoint_;
  active->endpoint = endpoint;
  active->token = active->call.path == kEtcdAuthenticate ? "" : token_;
  exchange.url = options_.endpoints[endpoint] + active->call.path;
  exchange.body = active->call.body;
  exchange.token = active->token;
  exchange.connect_timeout_ms = options_.connect_timeout_ms;
  exchange.at_most_once = active->call.at_most_once;
  if (!active->call.at_most_once) {  // that of the call has a timer
    exchange.deadline = std::min(active->call.deadline,
                                 SteadyClock::now() + milliseconds(options_.attempt_timeout_ms));
  }
  active->exchange =
      http_.start(std::move(exchange), [this, active, endpoint](EtcdAnswer answered) {
        active->exchange.reset();
        answer(active, endpoint, std::move(answered));
      });
}

void EtcdSession::answer(const ActivePointer& active, std::size_t endpoint, EtcdAnswer answered) {
  if (!active->done) return;
  const std::string& url = options_.endpoints[endpoint];
  if (!answered.failure && answered.status != 200) {
    EtcdFailure failure = parse_etcd_failure(answered.status, answered.body);
    return answer_failure(active, endpoint, failure);
  }
  std::optional<Error> error;
  if (answered.failure) {
    error = Error(Code::kUnavailable, fmt::format("etcd {}: {}", url, *answered.failure));
  } else if (auto checked = active->call.check(answered.body); !checked) {
    error = checked.error().with_context("etcd " + url);
  }
  if (!error) return finish(active, {std::nullopt, false, std::move(answered.body)});
  if (active->call.at_most_once && answered.may_be_sent) {
    leave_endpoint(endpoint);
    return finish(active, {std::move(error), true, ""});
  }
  next_endpoint(active, endpoint, std::move(*error));
}

void EtcdSession::answer_failure(const ActivePointer& active, std::size_t endpoint,
                                 const EtcdFailure& failure) {
  Error error = failure.error().with_context(options_.endpoints[endpoint]);
  if (failure.is_stale_token() && options_.user.empty()) {
    error = Error(Code::kUnauthorized, "etcd asks for a user and a password");
  } else if (failure.is_stale_token() && active->tokens < kTokensMax) {
    ++active->tokens;
    if (has_token_ && token_ == active->token) has_token_ = false;
    return attempt(active);
  }
  if (failure.is_definite()) return finish(active, {std::move(error), false, ""});
  if (active->call.at_most_once) {
    leave_endpoint(endpoint);
    return finish(active, {std::move(error), true, ""});
  }
  // It may be that this member alone has no leader.
  if (failure.grpc_code == 5 || failure.message.find(kNotEnabled) != std::string::npos)
    return finish(active, {std::move(error), false, ""});
  next_endpoint(active, endpoint, std::move(error));
}

void EtcdSession::next_endpoint(const ActivePointer& active, std::size_t endpoint, Error error) {
  if (!active->done) return;
  leave_endpoint(endpoint);
  active->last_error = std::move(error);
  ++active->failures;
  std::size_t count = options_.endpoints.size();
  if (active->failures % count != 0) return attempt(active);
  auto round = std::min<std::size_t>(active->failures / count - 1, 8);
  int pause_ms = std::min(kBackOffMs << round, kBackOffMaxMs);
  loop_.at(SteadyClock::now() + milliseconds(pause_ms), [this, active] { attempt(active); });
}

void EtcdSession::finish(const ActivePointer& active, EtcdReply reply) {
  if (!active->done) return;
  loop_.cancel(active->deadline_timer);
  active_.erase(active->id);
  Done done = std::exchange(active->done, nullptr);
  done(std::move(reply));
}

void EtcdSession::leave_endpoint(std::size_t endpoint) {
  if (endpoint_ == endpoint) endpoint_ = (endpoint_ + 1) % options_.endpoints.size();
}

void EtcdSession::fetch_token() {
  if (fetching_) return;
  fetching_ = true;
  EtcdCall request;
  request.path = kEtcdAuthenticate;
  request.body = etcd_authenticate_request(options_.user, options_.password);
  request.deadline = SteadyClock::now() + milliseconds(kTokenDeadlineMs);
  request.check = [](std::string_view body) -> Result<> {
    OFFPRINT_TRY(parse_etcd_token(body));
    return {};
  };
  call(std::move(request), [this](EtcdReply reply) { take_token(std::move(reply)); });
}

void EtcdSession::take_token(EtcdReply reply) {
  fetching_ = false;
  std::optional<Error> error;
  if (!reply.error) {
    token_ = *parse_etcd_token(reply.body);
    has_token_ = true;
  } else if (reply.error->message().find(kNotEnabled) != std::string::npos) {
    log::warn("etcd has no authentication enabled: the user '{}' is not used", options_.user);
    token_.clear();
    has_token_ = true;
  } else {
    Code code = reply.error->code() == Code::kInvalid ? Code::kUnauthorized : reply.error->code();
    error = Error(code, reply.error->message());
  }
  for (auto& each : std::exchange(waiting_, {})) each(error);
}

std::uint64_t EtcdSession::stream(Stream stream) {
  std::uint64_t id = ++next_id_;
  streams_[id].stream = std::move(stream);
  start_stream(id);
  return id;
}

void EtcdSession::start_stream(std::uint64_t id) {
  auto it = streams_.find(id);
  if (it == streams_.end() || ended_) return;
  if (!options_.user.empty() && !has_token_) {
    waiting_.push_back([this, id](std::optional<Error> error) {
      if (error) return end_stream(id, std::move(*error));
      start_stream(id);
    });
    return fetch_token();
  }
  EtcdExchange exchange;
  it->second.endpoint = endpoint_;
  exchange.url = options_.endpoints[endpoint_] + it->second.stream.path;
  exchange.body = it->second.stream.body;
  exchange.token = token_;
  exchange.connect_timeout_ms = options_.connect_timeout_ms;
  exchange.on_data = it->second.stream.on_data;
  std::string token = token_;
  it->second.exchange = http_.start(std::move(exchange), [this, id, token](EtcdAnswer answered) {
    if (answered.status == 401 && token == token_) has_token_ = false;
    end_stream(id, Error(Code::kUnavailable, answered.failure
                                                 ? *answered.failure
                                                 : fmt::format("HTTP status {}", answered.status)));
  });
}

void EtcdSession::end_stream(std::uint64_t id, Error error) {
  auto it = streams_.find(id);
  if (it == streams_.end()) return;
  leave_endpoint(it->second.endpoint);
  auto on_end = std::move(it->second.stream.on_end);
  streams_.erase(it);
  on_end(std::move(error));
}

void EtcdSession::stop_stream(std::uint64_t id, bool failed) {
  auto it = streams_.find(id);
  if (it == streams_.end()) return;
  if (it->second.exchange) http_.stop(*it->second.exchange);
  if (failed) leave_endpoint(it->second.endpoint);
  streams_.erase(it);
}

void EtcdSession::end(Error error) {
  if (ended_) return;
  ended_ = error;
  while (!streams_.empty()) stop_stream(streams_.begin()->first, false);
  waiting_.clear();
  while (!active_.empty()) {
    ActivePointer active = active_.begin()->second;
    bool sent = active->exchange && http_.stop(*active->exchange);
    finish(active, {error, active->call.at_most_once && sent, ""});
  }
}

Result<std::vector<std::string>> parse_etcd_endpoints(std::string_view text) {
  std::vector<std::string> endpoints;
  while (true) {
    std::size_t comma = text.find(',');
    std::string each(text.substr(0, comma));
    while (each.ends_with('/')) each.pop_back();
    std::size_t scheme = each.starts_with("http://") ? 7 : each.starts_with("https://") ? 8 : 0;
    if (scheme == 0 || each.size() == scheme ||
        each.find_first_of("/?#@ \t", scheme) != std::string::npos) {
      return fail(Code::kInvalid, "'" + each +
                                      "' is no address of etcd: it must be http://HOST:PORT or "
                                      "https://HOST:PORT, several with commas between them");
    }
    if (std::find(endpoints.begin(), endpoints.end(), each) == endpoints.end())
      endpoints.push_back(std::move(each));
    if (comma == std::string_view::npos) return endpoints;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace offprint::cluster
