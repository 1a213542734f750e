#include "server/router.h"

#include <unistd.h>

#include "server/cluster_api.h"
#include "server/cluster_instances.h"
#include "server/d1_binding.h"
#include "server/d1_import.h"
#include "server/d1_rest.h"
#include "server/database_limits.h"
#include "server/databases_api.h"
#include "server/errors.h"
#include "server/feeds.h"
#include "server/forwarding.h"
#include "server/gate.h"
#include "server/history_api.h"
#include "server/hrana_routes.h"
#include "server/imports.h"
#include "server/insights_api.h"
#include "server/instances.h"
#include "server/json_writer.h"
#include "server/metrics.h"
#include "server/namespaces_api.h"
#include "server/publications_api.h"
#include "server/query.h"
#include "server/root_database.h"
#include "server/route_rights.h"
#include "server/row_file.h"
#include "server/snapshot_download.h"
#include "server/streams.h"
#include "server/text_download.h"
#include "server/tokens_api.h"
#include "server/upload.h"
#include "server/usage_api.h"
#include "sqlite/connection.h"

namespace offprint::server {
namespace {

using database::Verb;

// A proxy may send requests here. Where any node's reads are asked for, a node without a primary
// answers them.
bool is_ready(const Service& service) {
  const bool may_be_alone = service.cluster == nullptr || service.options.reads_anywhere;
  return service.is_ready() && (may_be_alone || service.cluster->is_of_use());
}

constexpr std::uint64_t kStrangersBodyMax = 4 << 10;  // of a request that shows no token

constexpr std::string_view kFrontPage =
    "<!doctype html><meta charset=utf-8><title>Offprint</title>"
    "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:42em;margin:3em auto;padding:0 1em}"
    "code{background:#8882;padding:.1em .3em}</style>"
    "<h1>Offprint</h1><p>This server hosts SQLite databases over HTTP and streams them to live, "
    "read-only copies.</p>"
    "<ul><li><a href=/v1/databases>/v1/databases</a>: what is hosted here"
    "<li><code>POST /db/NAME/query</code> with <code>{\"sql\":\"SELECT 1\"}</code>: plain SQL"
    "<li><code>/db/NAME/</code>: the URL for any libSQL client"
    "<li><code>offprint follow URL/db/NAME FILE</code>: a live copy in an ordinary file"
    "<li><a href=/health>/health</a>, <a href=/metrics>/metrics</a>, <a "
    "href=/version>/version</a></ul>\n";

Response text_response(std::string body, std::string_view type) {
  Response response;
  response.content_type = type;
  response.body = std::move(body);
  return response;
}

Response not_found(const std::string& what) {
  return structured_error(Error(Code::kNotFound, "nothing answers at " + what));
}

// What a browser wants to see in the answer of a request from another origin.
std::string cross_origin_fields(std::string_view origin) {
  return "Access-Control-Allow-Origin: " + std::string(origin) +
         "\r\nVary: Origin\r\nAccess-Control-Expose-Headers: Offprint-Bookmark, "
         "Offprint-Served-By, Offprint-Age-Ms, Retry-After\r\n";
}

class CrossOriginClient final : public Client {
 public:
  CrossOriginClient(std::shared_ptr<Client> client, std::string_view origin)
      : client_(std::move(client)), origin_(origin) {}
  void respond(Response response) override {
    response.headers += cross_origin_fields(origin_);
    client_->respond(std::move(response));
  }
  void wake() override { client_->wake(); }
  std::string peer_address() const override { return client_->peer_address(); }

 private:
  const std::shared_ptr<Client> client_;
  const std::string origin_;
};

Response preflight_answer(const HttpRequest& request) {
  Response response;
  response.status = 204;
  response.content_type = {};
  std::string_view headers = request.header("Access-Control-Request-Headers");
  response.headers =
      "Access-Control-Allow-Methods: GET, HEAD, POST, DELETE, PUT, "
      "PATCH\r\nAccess-Control-Max-Age: 86400\r\n";
  if (!headers.empty())
    response.headers += "Access-Control-Allow-Headers: " + std::string(headers) + "\r\n";
  return response;
}

}  // namespace

BodyPlan Router::plan_body(const HttpRequest& request) {
  BodyPlan plan;
  std::string_view origin = request.header("Origin");
  if (!origin.empty() && request.method == Method::kOptions) return plan;  // it has no token
  Admission admission = admit(service_, request, d1::proxy_authorization(request));
  plan.access = std::move(admission.access);
  plan.refusal = std::move(admission.refusal);
  if (plan.refusal) {
    if (!origin.empty() && origin_is_allowed(request, origin))
      plan.refusal->headers += cross_origin_fields(origin);
    return plan;
  }
  plan.limit =
      plan.access == Access::nothing() ? kStrangersBodyMax : service_.options.body_bytes_max;
  std::string_view path = request.target.substr(0, request.target.find('?'));
  while (path.ends_with('/')) path.remove_suffix(1);
  if (request.method == Method::kPost && path.starts_with("/db/") && path.ends_with("/import")) {
    plan.refusal = way_of_large_body(service_, request);
    if (plan.refusal) return plan;
    plan.limit = service_.options.upload_bytes_max;
    plan.receiver = std::make_shared<SpooledUpload>(service_);
  } else if (auto receiver = d1::receive_upload(service_, request)) {
    plan.limit = service_.options.upload_bytes_max;
    plan.receiver = std::move(receiver);
  }
  return plan;
}

void Router::handle(HttpRequest& request, std::shared_ptr<BodyReceiver> receiver,
                    Responder responder) {
  if (d1::is_proxied(request)) {
    Result<d1::ProxiedRequest> proxied = d1::ProxiedRequest::unwrap(request);
    if (!proxied) return responder.respond(structured_error(proxied.error()));
    HttpRequest inner = proxied->request();
    inner.access = request.access;
    if (Result<> allowed = check_access(access_of(service_, inner), route_right(service_, inner));
        !allowed)
      return responder.respond(structured_error(allowed.error()));
    return handle(inner, nullptr, std::move(responder));
  }
  bool spooled = receiver != nullptr;
  std::string_view origin = request.header("Origin");
  if (origin.empty()) {
    Responder way = with_way_to_primary(service_, request, spooled, std::move(responder));
    return route(request, std::move(receiver), std::move(way));
  }
  // A page that a browser shows could otherwise write to every server that its user's machine can
  // reach.
  if (!origin_is_allowed(request, origin)) {
    return responder.respond(error_response(
        403, "ORIGIN_REFUSED",
        "requests from pages of this origin are refused; see the option --allow-origin"));
  }
  Responder wrapped(std::make_shared<CrossOriginClient>(responder.release(), origin));
  if (request.method == Method::kOptions) return wrapped.respond(preflight_answer(request));
  Responder way = with_way_to_primary(service_, request, spooled, std::move(wrapped));
  route(request, std::move(receiver), std::move(way));
}

bool Router::origin_is_allowed(const HttpRequest& request, std::string_view origin) const {
  for (const std::string& allowed : service_.options.allowed_origins) {
    if (allowed == "*" || allowed == origin) return true;
  }
  std::size_t scheme = origin.find("://");
  return scheme != std::string_view::npos &&
         equal_ignoring_case(origin.substr(scheme + 3), request.header("Host"));
}

void Router::route(HttpRequest& request, std::shared_ptr<BodyReceiver> receiver,
                   Responder responder) {
  Result<Address> address = parse_address(request.target);
  if (!address) return responder.respond(structured_error(address.error()));
  if (d1::is_rest_request(*address)) {
    return d1::handle_rest(service_, request, *address, std::move(receiver), std::move(responder));
  }
  if (is_namespace_address(*address))
    return handle_namespace(service_, request, *address, std::move(responder));
  if (address->segments.empty() || address->segments[0] != "db") {
    return route_root(request, *address, std::move(responder));
  }
  if (auto instance = parse_instance_address(*address))
    return route_instance(request, *instance, *std::move(address), std::move(responder));
  Result<DatabaseAddress> target = parse_database_address(*address);
  if (!target) return responder.respond(structured_error(target.error()));
  route_database(request, *target, *address, std::move(receiver), std::move(responder));
}

void Router::route_instance(HttpRequest& request, const Result<InstanceAddress>& instance,
                            Address address, Responder responder) {
  if (!instance) return responder.respond(structured_error(instance.error()));
  if (instance->action == "import" || is_hrana_socket(instance->action, request)) {
    return responder.respond(structured_error(Error(Code::kForbidden,
                                                    "a publication's instance is read only, over "
                                                    "HTTP requests")));
  }
  if (instance->action == kInstanceAddress)
    return handle_instance_address(service_, instances_, *instance, request, std::move(responder));
  at_instance(instances_, *instance, request, std::move(responder),
              [this, address = std::move(address)](const DatabaseAddress& target,
                                                   HttpRequest& asked, Responder later) {
                route_database(asked, target, address, nullptr, std::move(later));
              });
}

void Router::route_database(HttpRequest& request, const DatabaseAddress& target,
                            const Address& address, std::shared_ptr<BodyReceiver> receiver,
                            Responder responder) {
  const std::string& action = target.action;
  bool is_post = request.method == Method::kPost;
  if (is_hrana_socket(action, request))
    return handle_hrana(service_, target.name, action, request, std::move(responder));
  if (is_post && d1::is_binding_request(action, request, address))
    return d1::handle_binding(service_, target.name, request, address, std::move(responder));
  if (is_hrana_action(action) || action == "query") {
    if (!is_post) return responder.respond(wrong_method("POST"));
    if (action == "query")
      return handle_query(service_, target.name, request, std::move(responder));
    return handle_hrana(service_, target.name, action, request, std::move(responder));
  }
  if (action == "import") {
    if (!is_post) return responder.respond(wrong_method("POST"));
    return route_import(target.name, address, std::move(receiver), std::move(responder));
  }
  if (action == "execute") return responder.respond(wrong_method("POST"));
  if ((action == "dump" || action == "export") && !request.header("Offprint-At").empty()) {
    return responder.respond(
        structured_error(Error(Code::kInvalid,
                               "EARLIER_STATE: an earlier state is exported as an SQLite file "
                               "(/snapshot), or forked first")));
  }
  if (action == "dump") {
    if (is_post)  // of a D1 binding
      return handle_snapshot(service_, target.name, request, std::move(responder));
    if (!request.is_get()) return responder.respond(wrong_method("GET, POST"));
    return handle_dump(
        service_, target.name, address,
        while_allowed(std::move(responder), request.access, target.name, Verb::kSnapshot));
  }
  if (action == "export") {
    if (!request.is_get()) return responder.respond(wrong_method("GET"));
    return handle_export(service_, target.name, request, address,
                         while_allowed(std::move(responder), request.access, target.name, {}));
  }
  if (action == "stream") {
    if (!request.is_get()) return responder.respond(wrong_method("GET"));
    return handle_stream(
        service_, target.name, request, address,
        while_allowed(std::move(responder), request.access, target.name, Verb::kSubscribe));
  }
  if (action == "pages") {
    if (!is_post) return responder.respond(wrong_method("POST"));
    return handle_pages(
        service_, target.name, request, address,
        while_allowed(std::move(responder), request.access, target.name, Verb::kSubscribe));
  }
  if (action == "changes" || action == "notify" || action == "live")
    return route_feed(request, target, address, std::move(responder));
  if (action.empty() || action == "snapshot" || action == "v2" || action == "v3") {
    if (!request.is_get()) return responder.respond(wrong_method("GET"));
    if (action.empty())
      return handle_describe_database(service_, target.name, std::move(responder));
    if (action == "snapshot") {
      return handle_snapshot(
          service_, target.name, request,
          while_allowed(std::move(responder), request.access, target.name, Verb::kSnapshot));
    }
    return responder.respond(
        text_response("", "text/plain"));  // a client asks which versions are spoken
  }
  responder.respond(not_found(std::string(request.target)));
}

void Router::route_feed(HttpRequest& request, const DatabaseAddress& target, const Address& address,
                        Responder responder) {
  if (target.action == "live") {
    if (request.method != Method::kPost) return responder.respond(wrong_method("POST"));
    return handle_live(service_, target.name, request, address,
                       while_allowed(std::move(responder), request.access, target.name, {}));
  }
  if (!request.is_get()) return responder.respond(wrong_method("GET"));
  handle_changes(
      service_, target.name, request, address, target.action == "notify",
      while_allowed(std::move(responder), request.access, target.name, Verb::kSubscribe));
}

void Router::route_import(const database::DatabaseName& name, const Address& address,
                          std::shared_ptr<BodyReceiver> receiver, Responder responder) {
  // plan_body() looks at the address as it was sent.
  if (!receiver)
    return responder.respond(not_found("an address with escapes; write /db/NAME/import"));
  std::string_view format = address.parameter("format").value_or("sqlite");
  if (format == "sqlite")
    return handle_import(service_, name, std::move(receiver), std::move(responder));
  if (format == "sql") {
    return handle_import_sql(service_, name, address, std::move(receiver), std::move(responder));
  }
  if (RowFile::is_format(format)) {
    return handle_import_rows(service_, name, address, std::move(receiver), std::move(responder));
  }
  responder.respond(
      structured_error(Error(Code::kInvalid, "'format' must be sqlite, sql, csv or jsonl")));
}

void Router::route_root(HttpRequest& request, const Address& address, Responder responder) {
  std::string path = address.path_from(0);
  if (path == "v1/databases" || path.starts_with("v1/databases/")) {
    return route_management(request, address, std::move(responder));
  }
  if (path == "v1/jobs" || path.starts_with("v1/jobs/"))
    return handle_jobs(service_, request, address, std::move(responder));
  if (is_hrana_action(path) || path == "query" || path == "execute" ||
      (path == "dump" && request.method == Method::kPost) || is_hrana_socket(path, request)) {
    return route_alias(request, path, std::move(responder));
  }
  if (path == "v1/stream" && (request.is_get() || request.method == Method::kPost)) {
    return handle_node_stream(
        service_, instances_, request, address,
        while_allowed(std::move(responder), request.access, std::nullopt, Verb::kSubscribe));
  }
  if (path == "v1/cluster/instance" && request.is_get())
    return handle_cluster_instance(service_, instances_, address, request, std::move(responder));
  if (path.starts_with("v1/cluster/"))
    return handle_cluster_change(service_, request,
                                 path.substr(std::string_view("v1/cluster/").size()),
                                 std::move(responder));
  if (path == "v1/tokens/revoke") {
    if (request.method != Method::kPost) return responder.respond(wrong_method("POST"));
    return handle_revoke(service_, request, std::move(responder));
  }
  if (!request.is_get()) return responder.respond(not_found(std::string(request.target)));
  if (path == "v1/cluster") return handle_cluster(service_, std::move(responder));
  if (path == "v1/usage")
    return handle_list_usage(service_, request, address, std::move(responder));
  if (path == "v1/tokens/revoked") return handle_list_revoked(service_, std::move(responder));
  if (path == "health") {
    if (!address.parameter("ready") || is_ready(service_)) {
      return responder.respond(text_response("{\"status\":\"ok\"}\n", "application/json"));
    }
    return responder.respond(
        structured_error(Error(Code::kUnavailable, "not every database can be served from here")));
  }
  if (path == "metrics") {
    return responder.respond(
        text_response(metrics_text(service_), "text/plain; version=0.0.4; charset=utf-8"));
  }
  if (path == "version") {
    std::string body = "{\"program\":\"offprint\",\"version\":";
    append_json_string(body, service_.options.version);
    body += ",\"sqlite\":";
    append_json_string(body, sqlite3_libversion());
    body += ",\"formats\":{\"journal\":1,\"ltx\":3,\"stream\":1},\"pid\":";
    append_integer(body, ::getpid());
    body += "}\n";
    return responder.respond(text_response(std::move(body), "application/json"));
  }
  if (path.empty())
    return responder.respond(text_response(std::string(kFrontPage), "text/html; charset=utf-8"));
  if (path == "v2" || path == "v3") return responder.respond(text_response("", "text/plain"));
  responder.respond(not_found(std::string(request.target)));
}

// Requests at the root go to the database that root_database() says; `default` is made when it is
// missing, so that clients that know nothing of databases' names find one.
void Router::route_alias(HttpRequest& request, const std::string& action, Responder responder) {
  if (request.method != Method::kPost && !action.empty())
    return responder.respond(wrong_method("POST"));
  auto answer = [this, action](const database::DatabaseName& name, HttpRequest& asked,
                               Responder later) {
    Address address = parse_address(asked.target).value_or(Address());
    route_database(asked, {name, action}, address, nullptr, std::move(later));
  };
  at_root_database(service_, request, std::move(responder), std::move(answer));
}

void Router::route_management(HttpRequest& request, const Address& address, Responder responder) {
  if (address.segments.size() == 2) {
    if (request.is_get())
      return handle_list_databases(service_, request, address, std::move(responder));
    if (request.method == Method::kPost)
      return handle_create_database(service_, request, std::move(responder));
    return responder.respond(wrong_method("GET, POST"));
  }
  if (auto report = parse_report_address(address)) {
    if (!request.is_get()) return responder.respond(wrong_method("GET"));
    return handle_report(service_, *report, address, std::move(responder));
  }
  if (auto published = parse_publications_address(address))
    return handle_publications(service_, *published, address, request, std::move(responder));
  if (auto history = parse_history_address(address))
    return handle_history(service_, *history, address, request, std::move(responder));
  Result<database::DatabaseName> name = database::DatabaseName::parse(address.path_from(2));
  if (!name) return responder.respond(structured_error(name.error()));
  if (request.is_get()) return handle_describe_database(service_, *name, std::move(responder));
  if (request.method == Method::kPatch)
    return handle_change_database(service_, *name, request, std::move(responder));
  if (request.method == Method::kDelete)
    return handle_drop_database(service_, *name, std::move(responder));
  responder.respond(wrong_method("GET, PATCH, DELETE"));
}

}  // namespace offprint::server
