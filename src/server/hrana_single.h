#pragma once

#include "database/name.h"
#include "server/hrana.h"
#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// Hrana 1 over HTTP, which knew no streams: POST …/v1/execute and …/v1/batch, answered with
// {"result":…}, or with the error of the statement as a refusal of the request.
void handle_single(Service& service, const database::DatabaseName& name,
                   hrana::StreamRequest::Kind kind, HttpRequest& request, Responder responder);

}  // namespace offprint::server
