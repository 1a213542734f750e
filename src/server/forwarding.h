#pragma once

#include <optional>

#include "cluster/forwarder.h"
#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// On a node that has copies: whoever answers through the result may say that only the primary can
// (Response::for_primary); then the request goes there, and the client gets the primary's answer.
// 503 when it cannot be reached, 500 when its answer did not come. Elsewhere `responder` as it is.
// A body that was spooled is not passed on.
Responder with_way_to_primary(Service& service, const HttpRequest& request, bool spooled,
                              Responder responder);

// For a request whose body is too large to be passed on, before it comes: 307 and the address at
// the primary. Nothing: this node takes it, or does not know where the primary is.
std::optional<Response> way_of_large_body(const Service& service, const HttpRequest& request);

// The answer of another node, as one of this one.
Response answer_of(cluster::ForwardedAnswer answer);
// What says through which nodes a request has come: a field of the requests that they send on.
inline constexpr std::string_view kForwardedBy = "Offprint-Forwarded-By";

// Of a request to go on as a WebSocket, on a node that has copies: the connection goes on with the
// primary. `otherwise` is the answer when this node has none or it cannot be reached.
void tunnel_to_primary(Service& service, const HttpRequest& request, Responder responder,
                       Response otherwise);

}  // namespace offprint::server
