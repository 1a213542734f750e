#pragma once

#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server::d1 {

// POST /client/v4/graphql: the two questions that `wrangler d1 insights` and `wrangler d1 info`
// ask, told apart by their node (d1QueriesAdaptiveGroups, d1AnalyticsAdaptiveGroups). No other
// GraphQL is understood. The figures are those of the database's insights; rows returned are those
// read.
void handle_graphql(Service& service, HttpRequest& request, Responder responder);

}  // namespace offprint::server::d1
