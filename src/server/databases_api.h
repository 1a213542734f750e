#pragma once

#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

// The management interface, /v1/databases. docs/protocol/http.md, "Databases".
namespace offprint::server {

// GET /v1/databases?prefix=&contains=&after=&limit=
void handle_list_databases(Service& service, const HttpRequest& request, const Address& address,
                           Responder responder);
// POST /v1/databases {"name", "page_size", "auto_vacuum", "encoding", "foreign_keys", "schema",
// "copy_of", "limits"}
void handle_create_database(Service& service, HttpRequest& request, Responder responder);
// GET and DELETE /v1/databases/NAME
void handle_describe_database(Service& service, const database::DatabaseName& name,
                              Responder responder);
// The answer of the former.
Response describe_database(Service& service, const database::DatabaseName& name);
void handle_drop_database(Service& service, const database::DatabaseName& name,
                          Responder responder);

}  // namespace offprint::server
