#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "database/name.h"
#include "server/access.h"
#include "server/http_message.h"
#include "server/service.h"

// Hrana over WebSockets: streams and cursors of one database, many at once over one connection.
// docs/protocol/hrana.md, "WebSocket".
namespace offprint::server {

// Goes on with the connection of `request` as a WebSocket of that database. Refused when it is no
// proper handshake, or offers no subprotocol that is spoken here.
void open_hrana_socket(Service& service, const database::DatabaseName& name, HttpRequest& request,
                       Responder responder);

namespace hrana {

// What the client may do that sent this token in its `hello`, or none, and this field Authorization
// with its handshake. kUnauthorized; kForbidden: no SQL on the database. An error is told to the
// client, and every further request is answered with it. Thread: a loop.
Result<std::shared_ptr<const Access>> authenticate(const Service& service,
                                                   const database::DatabaseName& name,
                                                   std::optional<std::string_view> jwt,
                                                   std::string_view authorization);

}  // namespace hrana
}  // namespace offprint::server
