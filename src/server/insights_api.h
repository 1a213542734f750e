#pragma once

#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// GET /v1/databases/NAME/insights?since=&limit=: what statements cost. docs/protocol/http.md,
// "Insights".
void handle_insights(Service& service, const database::DatabaseName& name, const Address& address,
                     Responder responder);

}  // namespace offprint::server
