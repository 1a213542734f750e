#pragma once

#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// GET …/dump?schema=&data=&table=…&transaction=: the database as a script of SQL, out of one
// consistent state, streamed. docs/protocol/http.md, "Dump".
void handle_dump(Service& service, const database::DatabaseName& name, const Address& address,
                 Responder responder);

// GET …/export?format=csv|jsonl&table=T or &query=SELECT …: rows, out of one state, streamed, with
// the rights of who asks. docs/protocol/http.md, "Export of rows".
void handle_export(Service& service, const database::DatabaseName& name, const HttpRequest& request,
                   const Address& address, Responder responder);

}  // namespace offprint::server
