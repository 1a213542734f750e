#pragma once

#include <functional>

#include "base/result.h"
#include "database/name.h"
#include "server/http_message.h"
#include "server/service.h"

// Which database a request at the root means.
namespace offprint::server {

inline constexpr std::string_view kDefaultDatabase = "default";

// That of the field x-namespace; else, where the service says so, of the first label of Host
// (orders.example.com); else `default`. kInvalid: no database's name.
Result<database::DatabaseName> root_database(const Service& service, const HttpRequest& request);

// Calls `answer` with that database and the request; makes `default` when it is missing. Refuses
// in the plain form. `answer` may be called later, on another thread, with a copy of the request.
using RootAnswer =
    std::function<void(const database::DatabaseName&, HttpRequest&, Responder responder)>;
void at_root_database(Service& service, HttpRequest& request, Responder responder,
                      RootAnswer answer);

}  // namespace offprint::server
