#pragma once

#include <string>

#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// ,"primary":"NODE","in_sync":["NODE",…],"epoch":N
void append_cluster(std::string& to, const cluster::ClusterNode::Status& status);

// GET /v1/cluster: what this node knows of its cluster. 404 on a node that is in none.
void handle_cluster(Service& service, Responder responder);
// POST /v1/cluster/switchover {"to":"NODE"}: makes that node primary, without `to` any other one.
void handle_switchover(Service& service, HttpRequest& request, Responder responder);

}  // namespace offprint::server
