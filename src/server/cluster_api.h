#pragma once

#include <string>
#include <string_view>

#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// ,"primary":"NODE","in_sync":["NODE",…],"epoch":N
void append_cluster(std::string& to, const cluster::ClusterStatus& status);

// GET /v1/cluster: what this node knows of its cluster. 404 on a node that is in none.
void handle_cluster(Service& service, Responder responder);
// POST /v1/cluster/ACTION; `action` is that.
// switchover {"to":"NODE"}: makes that node primary, without `to` any other one.
// remove {"node":"NODE"}: a node that does not run has no copy any more.
void handle_cluster_change(Service& service, HttpRequest& request, std::string_view action,
                           Responder responder);

}  // namespace offprint::server
