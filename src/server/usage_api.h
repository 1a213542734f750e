#pragma once

#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

// What databases are used for, by months. docs/protocol/http.md, "Usage".
namespace offprint::server {

// GET /v1/usage?month=&prefix=&after=&limit=
void handle_list_usage(Service& service, const HttpRequest& request, const Address& address,
                       Responder responder);
// GET /v1/databases/NAME/usage
void handle_usage_of(Service& service, const database::DatabaseName& name, Responder responder);

}  // namespace offprint::server
