#pragma once

#include <optional>
#include <string>

#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

// The management interface of libSQL's server, /v1/namespaces. docs/protocol/namespaces.md.
namespace offprint::server {

// What an address below /v1/namespaces/ asks for.
struct NamespaceAddress {
  database::DatabaseName name;
  std::string action;  // "" for the namespace itself, "create", "config" …
  std::optional<database::DatabaseName> fork_to;  // of "fork"
};

bool is_namespace_address(const Address& address);
// A name is one segment, in which a slash is written %2F. kNotFound: nothing answers there;
// kInvalid: a name that is none.
Result<NamespaceAddress> parse_namespace_address(const Address& address);

void handle_namespace(Service& service, HttpRequest& request, const Address& address,
                      Responder responder);

}  // namespace offprint::server
