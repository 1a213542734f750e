#pragma once

#include <string>
#include <utility>
#include <vector>

#include "database/name.h"
#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

// What Workers' D1 bindings send. docs/protocol/d1.md, "Binding".
namespace offprint::server::d1 {

// A POST of /execute, or one of /query that only a binding sends (resultsFormat, or its session
// header). `action`: the path below the database, or below the root.
bool is_binding_request(std::string_view action, const HttpRequest& request,
                        const Address& address);

// Thread: a loop; the answer may come from any.
void handle_binding(Service& service, const database::DatabaseName& name, HttpRequest& request,
                    const Address& address, Responder responder);

// A request as Miniflare's remote bindings wrap it: POST /db/NAME/d1-proxy with the address that
// the Worker asked for in MF-URL, and its fields as MF-Header-NAME. Text of this object, which
// must outlive request().
class ProxiedRequest {
 public:
  // Moves the body out of `outer`. kNotFound: not such a request, or MF-URL is none of a binding's.
  static Result<ProxiedRequest> unwrap(HttpRequest& outer);
  // The request as a binding would have sent it below /db/NAME/.
  HttpRequest request();

 private:
  std::string target_;
  std::vector<std::pair<std::string, std::string>> headers_;
  std::string body_;
  int minor_version_ = 1;
  bool keep_alive_ = true;
};
bool is_proxied(const HttpRequest& request);
// "Bearer …" of the address of such a request; empty: it is none, or has none. Miniflare sends no
// field of its user's, so the token can stand nowhere else.
std::string proxy_authorization(const HttpRequest& request);

}  // namespace offprint::server::d1
