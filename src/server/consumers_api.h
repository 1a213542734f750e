#pragma once

#include <string>

#include "publication/publications.h"
#include "server/http_message.h"
#include "server/publications_api.h"
#include "server/service.h"

// Who is registered as reading what databases publish: docs/protocol/http.md, "Publications".
namespace offprint::server {

// {"name", "registered_at", "queries", "reads"}: an object.
void append_consumer(std::string& to, const database::StoredConsumer& consumer);
// {"orders":["id","total"]}
void append_columns(std::string& to, const publication::ReadColumns& columns);

// …/publications/PUB@vN/consumers[/NAME]: GET, PUT, DELETE.
void handle_consumers(Service& service, const database::DatabaseName& database,
                      const publication::PublicationName& publication,
                      const PublicationsAddress& asked, HttpRequest& request, Responder responder);

}  // namespace offprint::server
