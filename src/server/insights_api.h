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
void handle_report(Service& service, const ReportAddress& asked, const Address& address,
                   Responder responder);

// GET /v1/databases/NAME/insights?since=&limit=: what statements cost. docs/protocol/http.md,
// "Insights".
void handle_insights(Service& service, const database::DatabaseName& name, const Address& address,
                     Responder responder);
// GET /v1/databases/NAME/slow?limit=: the last ones that took long. "Slow statements" there.
void handle_slow(Service& service, const database::DatabaseName& name, const Address& address,
                 Responder responder);

}  // namespace offprint::server
