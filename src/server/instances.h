#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "database/name.h"
#include "publication/publications.h"
#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// /db/DB/pub/PUB@vN/ACTION?parameter=value: an instance of a publication, and what is asked of it.
struct InstanceAddress {
  database::DatabaseName source;
  publication::PublicationName publication;
  std::string action;  // as of a database: "stream", "query", "" …
  std::vector<std::pair<std::string, std::string>> parameters;  // of the address
};
// Nothing: no such address. kInvalid: what is wrong in it.
std::optional<Result<InstanceAddress>> parse_instance_address(const Address& address);

// What tokens may name: "shop/orders/pub/*" (all publications of a database) or
// "orders/pub/shop@v2?tenant=7", also without the version (any) or parameters (any).
bool is_instance_pattern(std::string_view text);
bool grant_matches(std::string_view pattern, const InstanceAddress& instance);

// Finds or makes the instance, and gives the request on to `answer` as one to its database, with
// rights on that alone, for reading.
using InstanceAnswer =
    std::function<void(const DatabaseAddress& target, HttpRequest& request, Responder responder)>;
void at_instance(Service& service, const InstanceAddress& instance, HttpRequest& request,
                 Responder responder, InstanceAnswer answer);

}  // namespace offprint::server
