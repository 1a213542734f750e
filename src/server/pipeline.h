#pragma once

#include "database/name.h"
#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// POST …/v2/pipeline and …/v3/pipeline: one Hrana pipeline becomes one request to the store.
// Thread: a loop; the answer may come from any.
void handle_pipeline(Service& service, const database::DatabaseName& name, HttpRequest& request,
                     Responder responder);

}  // namespace offprint::server
