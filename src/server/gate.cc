#include "server/gate.h"

#include "base/clock.h"
#include "server/authenticator.h"
#include "server/errors.h"
#include "server/route_rights.h"

namespace offprint::server {
namespace {

Response refusal_of(const Error& error, const RouteRight& right) {
  Response response = right.plain_errors ? plain_error(error) : structured_error(error);
  if (error.code() == Code::kUnauthorized) {
    bool none = error.message().starts_with("TOKEN_MISSING");
    response.headers += none ? "WWW-Authenticate: Bearer realm=\"offprint\"\r\n"
                             : "WWW-Authenticate: Bearer realm=\"offprint\", "
                               "error=\"invalid_token\"\r\n";
  }
  return response;
}

// A body is read as it is; what it would be after decompressing has no limit.
bool is_encoded(const HttpRequest& request) {
  std::string_view encoding = request.header("Content-Encoding");
  return !encoding.empty() && !equal_ignoring_case(encoding, "identity");
}

Response encoding_refused() {
  Response response = error_response(415, "ENCODING_REFUSED",
                                     "request bodies are taken as they are, without compression");
  response.headers = "Accept-Encoding: identity\r\n";
  return response;
}

struct Guard {
  std::shared_ptr<const Access> access;
  std::optional<database::DatabaseName> name;
  database::Verbs verb;
  bool holds() const {
    if (!access->counts(unix_time_ms() / 1000)) return false;
    return !name || (verb.empty() ? access->allows_sql(*name) : access->allows(*name, verb));
  }
};

// Cut, not ended: the client must not take what it has for the whole.
class GuardedStream final : public BodyStream {
 public:
  GuardedStream(std::unique_ptr<BodyStream> stream, Guard guard)
      : stream_(std::move(stream)), guard_(std::move(guard)) {}
  void start(std::shared_ptr<Client> client) override { stream_->start(std::move(client)); }
  void stop() override { stream_->stop(); }
  // Asked at least once a second.
  State fill(std::string& to) override {
    if (guard_.holds()) return stream_->fill(to);
    std::size_t before = to.size();
    stream_->last_words(to);
    return to.size() == before ? State::kFailed : State::kEnd;
  }

 private:
  const std::unique_ptr<BodyStream> stream_;
  const Guard guard_;
};

class GuardedClient final : public Client {
 public:
  GuardedClient(std::shared_ptr<Client> client, Guard guard)
      : client_(std::move(client)), guard_(std::move(guard)) {}
  void respond(Response response) override {
    if (response.stream)
      response.stream = std::make_unique<GuardedStream>(std::move(response.stream), guard_);
    client_->respond(std::move(response));
  }
  void wake() override { client_->wake(); }
  std::string peer_address() const override { return client_->peer_address(); }

 private:
  const std::shared_ptr<Client> client_;
  const Guard guard_;
};

Result<std::shared_ptr<const Access>> let_in(const Service& service, const HttpRequest& request,
                                             const RouteRight& right,
                                             std::string_view authorization) {
  if (right.need == Need::kNothing) return Access::nothing();
  OFFPRINT_TRY_ASSIGN(auto access, service.authenticator->authenticate_field(authorization));
  OFFPRINT_TRY(check_access(*access, right));
  if (!right.exists)
    return fail(Code::kNotFound, "nothing answers at " + std::string(request.target));
  return access;
}

}  // namespace

Admission admit(const Service& service, const HttpRequest& request,
                std::string_view authorization) {
  if (authorization.empty()) authorization = request.header("Authorization");
  Admission admission;
  if (service.authenticator != nullptr) {
    RouteRight right = route_right(service, request);
    Result<std::shared_ptr<const Access>> access = let_in(service, request, right, authorization);
    if (!access) {
      admission.refusal = refusal_of(access.error(), right);
      return admission;
    }
    admission.access = *std::move(access);
  }
  if (is_encoded(request)) admission.refusal = encoding_refused();
  return admission;
}

const Access& access_of(const Service& service, const HttpRequest& request) {
  if (request.access) return *request.access;
  return service.authenticator == nullptr ? *Access::unlimited() : *Access::nothing();
}

Responder while_allowed(Responder responder, std::shared_ptr<const Access> access,
                        std::optional<database::DatabaseName> name, database::Verbs verb) {
  if (!access) return responder;
  Guard guard{std::move(access), std::move(name), verb};
  return Responder(std::make_shared<GuardedClient>(responder.release(), std::move(guard)));
}

}  // namespace offprint::server
