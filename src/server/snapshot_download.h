#pragma once

#include "database/name.h"
#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// GET …/snapshot: a consistent SQLite file, read by helper threads as fast as the client takes it;
// with Offprint-At that of an earlier state.
void handle_snapshot(Service& service, const database::DatabaseName& name,
                     const HttpRequest& request, Responder responder);

}  // namespace offprint::server
