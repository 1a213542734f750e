#pragma once

#include <simdjson.h>

#include "database/name.h"
#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// POST …/query: {"sql":"…","args":[…]}, or an array of those as one transaction.
// docs/protocol/http.md, "Query". Thread: a loop; the answer may come from any.
void handle_query(Service& service, const database::DatabaseName& name, HttpRequest& request,
                  Responder responder);

// The body of such a request.
struct Query {
  std::vector<database::SqlStatement> statements;
  bool is_array = false;
};
Result<Query> parse_query(std::string& body);
// One statement of it, {"sql":"…","args":[…]}; further fields are left out.
Result<database::SqlStatement> parse_statement_object(simdjson::dom::object object);

}  // namespace offprint::server
