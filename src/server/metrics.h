#pragma once

#include <string>

#include "server/service.h"

namespace offprint::server {

// GET /metrics: Prometheus' text format. Names: docs/protocol/http.md, "Metrics".
std::string metrics_text(Service& service);

}  // namespace offprint::server
