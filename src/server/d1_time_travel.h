#pragma once

#include "database/name.h"
#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

// What D1's Time Travel asks, as far as a database can be told about its past: its newest state.
// Thread: any; from memory.
namespace offprint::server::d1 {

// GET …/time_travel/bookmark?timestamp=: where the database stood then, now without it.
Response time_travel_bookmark(const Service& service, const database::DatabaseName& name,
                              const Address& address);
// POST …/time_travel/restore?bookmark=|timestamp=: nothing changes when that is the state it has.
Response time_travel_restore(const Service& service, const database::DatabaseName& name,
                             const Address& address);

}  // namespace offprint::server::d1
