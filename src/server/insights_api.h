#pragma once

#include <optional>
#include <string>

#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// What an address below a database's in /v1/databases tells of it.
struct ReportAddress {
  std::string name;    // as it was sent
  std::string report;  // "insights", "usage" or "slow"
};
// Nothing: the address is another one.
std::optional<ReportAddress> parse_report_address(const Address& address);
// GET /v1/databases/NAME/insights?since=&limit=: what statements cost; …/slow?limit=: the last ones
// that took long; …/usage. docs/protocol/http.md, "Insights" and behind it.
void handle_report(Service& service, const ReportAddress& asked, const Address& address,
                   Responder responder);

}  // namespace offprint::server
