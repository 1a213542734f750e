#include "server/forwarding.h"

#include <algorithm>
#include <optional>

#include "cluster/cluster_control.h"
#include "server/address.h"
#include "server/errors.h"

namespace offprint::server {
namespace {

constexpr std::ptrdiff_t kHopsMax = 8;
constexpr std::size_t kTunnelUnsentMax = 1 << 20;

std::string_view method_name(Method method) {
  switch (method) {
    case Method::kGet:
      return "GET";
    case Method::kHead:
      return "HEAD";
    case Method::kPost:
      return "POST";
    case Method::kPut:
      return "PUT";
    case Method::kPatch:
      return "PATCH";
    case Method::kDelete:
      return "DELETE";
    case Method::kOptions:
    case Method::kOther:
      break;
  }
  return {};
}

bool stays_here(std::string_view name) {
  for (std::string_view own :
       {"host", "connection", "keep-alive", "transfer-encoding", "content-length", "expect", "te",
        "trailer", "upgrade", "origin", "accept-encoding"}) {
    if (equal_ignoring_case(own, name)) return true;
  }
  return equal_ignoring_case(kForwardedBy, name);
}

class ForwardingClient final : public Client {
 public:
  ForwardingClient(Service& service, std::shared_ptr<Client> client,
                   cluster::ForwardedRequest request)
      : service_(service), client_(std::move(client)), request_(std::move(request)) {}

  void respond(Response response) override {
    if (!response.for_primary) return client_->respond(std::move(response));
    if (!response.own_baton.empty()) {
      std::size_t at = request_.body.find('"' + response.own_baton + '"');
      if (at != std::string::npos) request_.body.replace(at, response.own_baton.size() + 2, "null");
    }
    std::shared_ptr<Response> unknown;
    if (response.may_be_done) unknown = std::make_shared<Response>(std::move(response));
    service_.forwarder->send(std::move(request_), [client = client_, unknown](auto answer) {
      if (answer) return client->respond(answer_of(*std::move(answer)));
      client->respond(unknown ? std::move(*unknown) : structured_error(answer.error()));
    });
  }
  void wake() override { client_->wake(); }

 private:
  Service& service_;
  const std::shared_ptr<Client> client_;
  cluster::ForwardedRequest request_;
};

// A connection whose other end is at the primary.
class TunnelTakeover final : public Takeover {
 public:
  explicit TunnelTakeover(std::unique_ptr<cluster::Tunnel> tunnel) : tunnel_(std::move(tunnel)) {}
  void start(std::shared_ptr<Client> client) override {
    tunnel_->start([client = std::move(client)] { client->wake(); });
  }
  void receive(std::string_view bytes) override { tunnel_->send(bytes); }
  bool wants_more() const override { return tunnel_->unsent() < kTunnelUnsentMax; }
  BodyStream::State fill(std::string& to) override {
    bool is_open = tunnel_->take(to);
    return is_open && !stopping_ ? BodyStream::State::kWait : BodyStream::State::kEnd;
  }
  void stop() override { stopping_ = true; }

 private:
  const std::unique_ptr<cluster::Tunnel> tunnel_;
  bool stopping_ = false;
};

// The request for the primary; nothing when it has come through too many nodes.
std::optional<cluster::ForwardedRequest> to_be_forwarded(const Service& service,
                                                         const HttpRequest& request) {
  cluster::ForwardedRequest saved;
  saved.method = method_name(request.method);
  saved.target = request.target;
  std::string hops(request.header(kForwardedBy));
  if (std::ranges::count(hops, ',') >= kHopsMax) return std::nullopt;
  hops += (hops.empty() ? "" : ", ") + service.options.node_name;
  for (const auto& [name, value] : request.headers) {
    if (!stays_here(name)) saved.headers.emplace_back(name, value);
  }
  saved.headers.emplace_back(kForwardedBy, std::move(hops));
  return saved;
}

}  // namespace

Response answer_of(cluster::ForwardedAnswer answer) {
  Response response;
  response.status = answer.status;
  response.content_type = {};  // it is among the headers
  for (const auto& [name, value] : answer.headers) {
    if (name.starts_with("Access-Control-") || equal_ignoring_case(name, "Vary")) continue;
    response.headers += name + ": " + value + "\r\n";
  }
  response.body = std::move(answer.body);
  return response;
}

Responder with_way_to_primary(Service& service, const HttpRequest& request, bool spooled,
                              Responder responder) {
  if (service.forwarder == nullptr || spooled) return responder;
  std::string_view method = method_name(request.method);
  std::string_view path = request.target.substr(0, request.target.find('?'));
  // What is here: large things, and what is asked to know this node. Jobs run at the primary, and
  // what databases publish is known there.
  const bool is_published = path.starts_with("/v1/databases/") && path.contains("/publications");
  bool is_elsewhere = path.starts_with("/v1/jobs/") || path.starts_with("/v1/namespaces/") ||
                      path.starts_with("/client/v4/") || is_published ||
                      (path == "/v1/databases" && request.target.contains("instances=1"));
  if (method.empty() || (request.is_get() && !is_elsewhere) || path.ends_with("/pages") ||
      path == "/v1/stream")
    return responder;
  auto saved = to_be_forwarded(service, request);
  if (!saved) return responder;  // answered with its 503
  saved->body = request.body;
  return Responder(
      std::make_shared<ForwardingClient>(service, responder.release(), *std::move(saved)));
}

std::optional<Response> way_of_large_body(const Service& service, const HttpRequest& request) {
  if (!service.has_copies()) return std::nullopt;
  std::string url = service.options.primary;
  if (service.cluster != nullptr) {
    const cluster::ClusterStatus status = service.cluster->status();
    for (const auto& node : status.nodes) {
      if (node.name == status.primary) url = node.url;
    }
  }
  while (url.ends_with('/')) url.pop_back();
  if (url.empty()) return std::nullopt;
  url += request.target;
  Response response = error_response(307, "AT_PRIMARY", "only the primary takes this: " + url);
  response.headers += "Location: " + url + "\r\n";
  return response;
}

void tunnel_to_primary(Service& service, const HttpRequest& request, Responder responder,
                       Response otherwise) {
  bool is_refused = otherwise.status != 101 && otherwise.status != 404;
  auto saved = service.forwarder == nullptr ? std::nullopt : to_be_forwarded(service, request);
  if (!saved || is_refused) return responder.respond(std::move(otherwise));
  saved->headers.emplace_back("Connection", "Upgrade");
  saved->headers.emplace_back("Upgrade", request.header("Upgrade"));
  service.forwarder->open_tunnel(
      *std::move(saved), [client = responder.release(), otherwise = std::make_shared<Response>(
                                                            std::move(otherwise))](auto opened) {
        Responder to_client(client);
        if (!opened && opened.error().code() == Code::kUnavailable)
          return to_client.respond(std::move(*otherwise));
        if (!opened) return to_client.respond(structured_error(opened.error()));
        Response response = answer_of(std::move(opened->answer));
        if (opened->tunnel) {
          response.headers += "Upgrade: websocket\r\nConnection: Upgrade\r\n";
          response.takeover = std::make_unique<TunnelTakeover>(std::move(opened->tunnel));
        }
        to_client.respond(std::move(response));
      });
}

}  // namespace offprint::server
