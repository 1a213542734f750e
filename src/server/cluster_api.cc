#include "server/cluster_api.h"

#include "server/errors.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

Response cluster_response(const Service& service) {
  Response response;
  response.body = "{\"node\":";
  append_json_string(response.body, service.options.node_name);
  append_cluster(response.body, service.cluster_status());
  response.body += "}\n";
  return response;
}

Error in_none() { return Error(Code::kNotFound, "NO_CLUSTER: this node is in no cluster"); }

// Empty: any.
Result<std::string> target_of(HttpRequest& request) {
  if (request.body.empty()) return std::string();
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto object, reader.parse_object(request.body));
  OFFPRINT_TRY_ASSIGN(auto to, json_string_field(object, "to"));
  return std::string(to.value_or(""));
}

}  // namespace

void append_cluster(std::string& to, const cluster::ClusterNode::Status& status) {
  to += ",\"primary\":";
  append_json_string(to, status.primary);
  to += ",\"in_sync\":[";
  for (const std::string& node : status.in_sync) {
    if (to.back() != '[') to += ',';
    append_json_string(to, node);
  }
  to += "],\"epoch\":";
  append_unsigned(to, status.epoch.value);
}

void handle_cluster(Service& service, Responder responder) {
  if (!service.cluster_status) return responder.respond(structured_error(in_none()));
  responder.respond(cluster_response(service));
}

void handle_switchover(Service& service, HttpRequest& request, Responder responder) {
  if (!service.cluster_hand_over) return responder.respond(structured_error(in_none()));
  Result<std::string> to = target_of(request);
  if (!to) return responder.respond(structured_error(to.error()));
  if (service.is_follower())
    return responder.respond(structured_error(not_primary("another node can hand over")));
  if (*to == service.options.node_name) return responder.respond(cluster_response(service));
  respond_from_helper(service, std::move(responder), [&service, to = *std::move(to)] {
    if (auto done = service.cluster_hand_over(to); !done) {
      // kNotFound would be asked of the primary, and that is this node.
      const bool is_none = done.error().code() == Code::kNotFound;
      return structured_error(is_none ? Error(Code::kConflict, done.error().message())
                                      : done.error());
    }
    return cluster_response(service);
  });
}

}  // namespace offprint::server
