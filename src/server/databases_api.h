#pragma once

#include <functional>

#include "server/address.h"
#include "server/database_templates.h"
#include "server/http_message.h"
#include "server/service.h"

// The management interface, /v1/databases. docs/protocol/http.md, "Databases".
namespace offprint::server {

// GET /v1/databases?prefix=&contains=&after=&limit=
void handle_list_databases(Service& service, const HttpRequest& request, const Address& address,
                           Responder responder);
// POST /v1/databases {"name", "page_size", "auto_vacuum", "encoding", "foreign_keys", "schema",
// "copy_of", "from_archive", "limits"}
void handle_create_database(Service& service, HttpRequest& request, Responder responder);
// A database to be made, and what it begins with.
struct Creation {
  database::DatabaseName name;
  database::CreateOptions options;
  DatabaseTemplate content;
  database::DatabaseLimits limits;
};
// Makes it on a thread that may wait; `done` is called there or here, once. kNotPrimary on copies,
// kConflict: the name is taken.
void create_database(Service& service, Creation creation, std::function<void(Result<>)> done);

// GET and DELETE /v1/databases/NAME
void handle_describe_database(Service& service, const database::DatabaseName& name,
                              Responder responder);
// The answer of the former.
Response describe_database(Service& service, const database::DatabaseName& name);
void handle_drop_database(Service& service, const database::DatabaseName& name,
                          Responder responder);

}  // namespace offprint::server
