#pragma once

#include <optional>
#include <string>

#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

// What databases publish: docs/protocol/http.md, "Publications".
namespace offprint::server {

// /v1/databases/NAME/publications[/PUB[@vN][/consumers[/CONSUMER]]], where NAME may have a slash.
struct PublicationsAddress {
  std::string database;
  std::string publication;  // empty: all of them
  bool of_consumers = false;
  std::string consumer;  // empty: all of them
};
std::optional<PublicationsAddress> parse_publications_address(const Address& address);

// GET /v1/databases?instances=1: the instances that are kept up now.
void handle_list_instances(Service& service, const HttpRequest& request, Responder responder);

void handle_publications(Service& service, const PublicationsAddress& asked, const Address& address,
                         HttpRequest& request, Responder responder);

}  // namespace offprint::server
