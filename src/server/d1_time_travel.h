#pragma once

#include "database/name.h"
#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

// What D1's Time Travel asks. docs/protocol/d1.md, "Time Travel". Thread: any.
namespace offprint::server::d1 {

// GET …/time_travel/bookmark?timestamp=: where the database stood then, now without it.
void time_travel_bookmark(Service& service, const database::DatabaseName& name,
                          const Address& address, Responder responder);
// POST …/time_travel/restore?bookmark=|timestamp=: the database becomes what it was.
void time_travel_restore(Service& service, const database::DatabaseName& name,
                         const Address& address, Responder responder);

}  // namespace offprint::server::d1
