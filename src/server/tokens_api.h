#pragma once

#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// POST /v1/tokens/revoke: {"jti":…,"until":…} or {"database":…,"issued_before":…}. Durable and in
// effect when it is answered.
void handle_revoke(Service& service, HttpRequest& request, Responder responder);
// GET /v1/tokens/revoked
void handle_list_revoked(Service& service, Responder responder);

}  // namespace offprint::server
