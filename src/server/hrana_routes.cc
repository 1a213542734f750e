#include "server/hrana_routes.h"

#include "server/cursor.h"
#include "server/hrana_single.h"
#include "server/hrana_socket.h"
#include "server/pipeline.h"
#include "server/websocket.h"

namespace offprint::server {

bool is_hrana_action(std::string_view action) {
  return action == "v2/pipeline" || action == "v3/pipeline" || action == "v3/cursor" ||
         action == "v1/execute" || action == "v1/batch";
}

void handle_hrana(Service& service, const database::DatabaseName& name, std::string_view action,
                  HttpRequest& request, Responder responder) {
  using Kind = hrana::StreamRequest::Kind;
  if (action.empty()) return open_hrana_socket(service, name, request, std::move(responder));
  if (action == "v3/cursor") return handle_cursor(service, name, request, std::move(responder));
  if (action == "v1/execute" || action == "v1/batch") {
    Kind kind = action == "v1/batch" ? Kind::kBatch : Kind::kExecute;
    return handle_single(service, name, kind, request, std::move(responder));
  }
  handle_pipeline(service, name, request, std::move(responder));
}

bool is_hrana_socket(std::string_view action, const HttpRequest& request) {
  return action.empty() && is_websocket_request(request);
}

}  // namespace offprint::server
