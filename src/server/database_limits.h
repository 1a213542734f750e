#pragma once

#include <string>

#include "database/store.h"
#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// PATCH /v1/databases/NAME {"limits":{…}}: changes those that are named; null and 0 take a limit
// away.
void handle_change_database(Service& service, const database::DatabaseName& name,
                            HttpRequest& request, Responder responder);

// Changes what `json`, an object, names. kInvalid: an unknown field, a value out of range.
Result<> read_limits(std::string& json, database::DatabaseLimits& limits);
// The same for the object in the field "limits" of `json`; nothing when there is none.
Result<> read_limits_field(std::string& json, database::DatabaseLimits& limits);
// {"size_bytes_max":…,…}
std::string limits_json(const database::DatabaseLimits& limits);

}  // namespace offprint::server
