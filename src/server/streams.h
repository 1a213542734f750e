#pragma once

#include "server/address.h"
#include "server/http_message.h"
#include "server/instances.h"
#include "server/service.h"

// Replication streams. docs/format/stream.md. A stream has no thread: its loop makes what is in
// memory, a helper the rest.
namespace offprint::server {

// GET …/stream?from=BOOKMARK
void handle_stream(Service& service, const database::DatabaseName& name, const HttpRequest& request,
                   const Address& address, Responder responder);
// POST …/pages
void handle_pages(Service& service, const database::DatabaseName& name, HttpRequest& request,
                  const Address& address, Responder responder);
// GET or POST /v1/stream?db=NAME@BOOKMARK&db=NAME…&pub=DB/pub/PUB@vN?tenant=7#BOOKMARK (a POST may
// give the parameters in its body). `instances` must outlive the streams.
void handle_node_stream(Service& service, InstanceHost& instances, HttpRequest& request,
                        const Address& address, Responder responder);

}  // namespace offprint::server
