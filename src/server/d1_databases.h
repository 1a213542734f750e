#pragma once

#include <string>
#include <string_view>

#include "database/store.h"
#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

// Databases as the REST interface of D1 knows them: listed, made, described, dropped.
// docs/protocol/d1.md, "REST". Thread: a loop; answers may come from any.
namespace offprint::server::d1 {

// A database's UUID (RFC 9562, version 8): when it was made, and its number, which is never used
// again. So it stays what it is whatever becomes of its history.
std::string uuid_of(const database::DatabaseInfo& info);
// By UUID or by name. kNotFound.
Result<database::DatabaseInfo> find_database(const Service& service, std::string_view id);

void list_databases(Service& service, const HttpRequest& request, const Address& address,
                    Responder responder);
void create_database(Service& service, HttpRequest& request, Responder responder);
void describe_database(Service& service, const database::DatabaseInfo& info,
                       const HttpRequest& request, const Address& address, Responder responder);
// PUT and PATCH: the mode of read replication, which can only be what it is.
void update_database(Service& service, const database::DatabaseInfo& info, HttpRequest& request,
                     Responder responder);
void delete_database(Service& service, const database::DatabaseInfo& info, Responder responder);

}  // namespace offprint::server::d1
