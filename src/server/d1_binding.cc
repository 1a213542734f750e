#include "server/d1_binding.h"

#include <algorithm>

#include "server/d1_query.h"
#include "server/errors.h"
#include "server/json_writer.h"

namespace offprint::server::d1 {
namespace {

constexpr std::string_view kProxyWord = "/d1-proxy";
constexpr std::string_view kProxiedField = "MF-Header-";

std::string_view path_of(std::string_view target) {
  std::string_view path = target.substr(0, target.find_first_of("?#"));
  while (path.ends_with('/')) path.remove_suffix(1);
  return path;
}

// Bindings read an answer's body only, so what is the statement's own failure has status 200, as
// at Cloudflare; what the node cannot do has its status, for whatever stands between.
Response failure(const Error& error) {
  Response response;
  bool is_own = error.code() == Code::kSql || error.code() == Code::kInvalid ||
                error.code() == Code::kTooLarge || error.sqlite_code() != 0;
  if (!is_own) response.status = http_status(error);
  if (response.status == 503) response.headers = "Retry-After: 1\r\n";
  response.body = "{\"success\":false,\"error\":";
  append_json_string(response.body, error_message(error));
  response.body += "}";
  return response;
}

Response binding_response(const Service& service, const database::DatabaseName& name, bool is_array,
                          Answer answer) {
  if (answer.error) return failure(*answer.error);
  std::uint64_t size = database_size(service, name);
  Response response;
  std::string& body = response.body;
  if (is_array) body += '[';
  for (std::size_t i = 0; i < answer.results.size(); ++i) {
    const QueryResult& result = answer.results[i];
    body += i > 0 ? ",{\"success\":true,\"results\":" : "{\"success\":true,\"results\":";
    body += result.rows;
    body += ",\"meta\":";
    append_meta(body, service, name, result, size);
    body += '}';
  }
  if (is_array) body += ']';
  return response;
}

// What a Worker's own field must not become: these are of the connection, or say who is asking.
bool stays_outside(std::string_view name) {
  for (std::string_view field :
       {"host", "origin", "authorization", "content-length", "content-encoding",
        "transfer-encoding", "connection", "expect", "upgrade", "x-namespace"}) {
    if (equal_ignoring_case(name, field)) return true;
  }
  return false;
}

}  // namespace

bool is_binding_request(std::string_view action, const HttpRequest& request,
                        const Address& address) {
  if (action == "execute") return true;
  return action == "query" &&
         (address.parameter("resultsFormat") || !request.header(kSessionToken).empty());
}

void handle_binding(Service& service, const database::DatabaseName& name, HttpRequest& request,
                    const Address& address, Responder responder) {
  Result<QueryList> list = parse_binding_queries(request.body);
  if (!list) return responder.respond(failure(list.error()));
  RunOptions options;
  if (address.parameter("resultsFormat") == "ROWS_AND_COLUMNS")
    options.rows = RunOptions::Rows::kArrays;
  bool is_array = list->is_array;
  run_queries(
      service, name, request, *std::move(list), options,
      [&service, name, is_array](Answer answer) {
        return binding_response(service, name, is_array, std::move(answer));
      },
      std::move(responder));
}

bool is_proxied(const HttpRequest& request) {
  std::string_view path = path_of(request.target);
  return path.starts_with("/db/") && path.ends_with(kProxyWord);
}

std::string proxy_authorization(const HttpRequest& request) {
  if (!is_proxied(request)) return {};
  Result<Address> address = parse_address(request.target);
  auto token = address ? address->parameter("token") : std::nullopt;
  return token && request.header("Authorization").empty() ? "Bearer " + std::string(*token) : "";
}

Result<ProxiedRequest> ProxiedRequest::unwrap(HttpRequest& outer) {
  std::string_view url = outer.header("MF-URL");
  if (outer.method != Method::kPost || url.empty()) {
    return fail(Code::kNotFound,
                "this address takes Miniflare's remote bindings: POST with MF-URL, no WebSocket");
  }
  std::size_t scheme = url.find("://");
  std::size_t path = scheme == std::string_view::npos ? scheme : url.find('/', scheme + 3);
  std::string_view inner = path == std::string_view::npos ? "" : url.substr(path);
  std::string_view action = path_of(inner);
  if (action != "/query" && action != "/execute" && action != "/dump") {
    return fail(Code::kNotFound, "MF-URL must be /query, /execute or /dump of a D1 binding, not " +
                                     std::string(url));
  }
  OFFPRINT_TRY_ASSIGN(Address address, parse_address(outer.target));
  ProxiedRequest proxied;
  proxied.minor_version_ = outer.minor_version;
  proxied.keep_alive_ = outer.keep_alive;
  std::string_view database = path_of(outer.target);
  database.remove_suffix(kProxyWord.size());
  proxied.target_ = std::string(database) + std::string(inner);
  for (const auto& [name, value] : outer.headers) {
    if (name.size() > kProxiedField.size() &&
        equal_ignoring_case(name.substr(0, kProxiedField.size()), kProxiedField)) {
      std::string_view field = name.substr(kProxiedField.size());
      if (!stays_outside(field)) proxied.headers_.emplace_back(field, value);
    } else if (!equal_ignoring_case(name, "MF-URL") && !equal_ignoring_case(name, "MF-Binding")) {
      proxied.headers_.emplace_back(name, value);
    }
  }
  if (std::string own = proxy_authorization(outer); !own.empty())
    proxied.headers_.emplace_back("Authorization", std::move(own));
  proxied.body_ = std::move(outer.body);
  return proxied;
}

HttpRequest ProxiedRequest::request() {
  HttpRequest request;
  request.method = Method::kPost;
  request.target = target_;
  for (const auto& [name, value] : headers_) request.headers.emplace_back(name, value);
  request.minor_version = minor_version_;
  request.keep_alive = keep_alive_;
  request.content_length = body_.size();
  request.body = std::move(body_);
  return request;
}

}  // namespace offprint::server::d1
