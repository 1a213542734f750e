#pragma once

#include <string_view>

#include "database/name.h"
#include "server/http_message.h"
#include "server/service.h"

// The addresses at which a database speaks Hrana, below /db/NAME/ and at the root.
namespace offprint::server {

// "v1/execute", "v1/batch", "v2/pipeline", "v3/pipeline", "v3/cursor": POST only.
bool is_hrana_action(std::string_view action);
// `action` may also be empty, for a WebSocket.
void handle_hrana(Service& service, const database::DatabaseName& name, std::string_view action,
                  HttpRequest& request, Responder responder);

// It asks for a WebSocket at the address of the database itself.
bool is_hrana_socket(std::string_view action, const HttpRequest& request);

}  // namespace offprint::server
