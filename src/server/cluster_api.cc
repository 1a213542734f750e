#include "server/cluster_api.h"

#include <functional>
#include <utility>

#include "server/errors.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

Response cluster_response(const Service& service) {
  const cluster::ClusterStatus status = service.cluster->status();
  Response response;
  response.body = "{\"node\":";
  append_json_string(response.body, service.options.node_name);
  append_cluster(response.body, status);
  response.body += ",\"min_in_sync\":";
  append_unsigned(response.body, static_cast<std::uint64_t>(status.min_in_sync));
  response.body += status.forced ? ",\"forced\":true,\"nodes\":[" : ",\"forced\":false,\"nodes\":[";
  for (const auto& node : status.nodes) {
    if (response.body.back() != '[') response.body += ',';
    response.body += "{\"node\":";
    append_json_string(response.body, node.name);
    response.body += node.name == status.primary ? ",\"role\":\"primary\""
                     : node.in_sync              ? ",\"role\":\"in sync\""
                                                 : ",\"role\":\"behind\"";
    response.body += ",\"url\":";
    append_json_string(response.body, node.url);
    response.body += '}';
  }
  response.body += "]}\n";
  return response;
}

Error in_none() { return Error(Code::kNotFound, "NO_CLUSTER: this node is in no cluster"); }

// {"FIELD":"NODE"}; empty: none is named.
Result<std::string> parse_node(HttpRequest& request, const char* field) {
  if (request.body.empty()) return std::string();
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto object, reader.parse_object(request.body));
  OFFPRINT_TRY_ASSIGN(auto node, json_string_field(object, field));
  return std::string(node.value_or(""));
}

void change(Service& service, Responder responder, std::function<Result<>()> work) {
  respond_from_helper(service, std::move(responder), [&service, work = std::move(work)] {
    if (auto done = work(); !done) {
      // kNotFound would be asked of the primary.
      const bool is_none = done.error().code() == Code::kNotFound;
      return structured_error(is_none ? Error(Code::kConflict, done.error().message())
                                      : done.error());
    }
    return cluster_response(service);
  });
}

void switch_over(Service& service, std::string to, Responder responder) {
  if (service.is_follower())
    return responder.respond(structured_error(not_primary("another node can hand over")));
  if (to == service.options.node_name) return responder.respond(cluster_response(service));
  change(service, std::move(responder),
         [&service, to = std::move(to)] { return service.cluster->switch_over(to); });
}

}  // namespace

void append_cluster(std::string& to, const cluster::ClusterStatus& status) {
  to += ",\"primary\":";
  append_json_string(to, status.primary);
  to += ",\"in_sync\":[";
  for (const auto& node : status.nodes) {
    if (!node.in_sync) continue;
    if (to.back() != '[') to += ',';
    append_json_string(to, node.name);
  }
  to += "],\"epoch\":";
  append_unsigned(to, status.epoch.value);
}

void handle_cluster(Service& service, Responder responder) {
  if (service.cluster == nullptr) return responder.respond(structured_error(in_none()));
  responder.respond(cluster_response(service));
}

void handle_cluster_change(Service& service, HttpRequest& request, std::string_view action,
                           Responder responder) {
  const bool switches = action == "switchover";
  if (!switches && action != "remove")
    return responder.respond(structured_error(
        Error(Code::kNotFound, "'" + std::string(action) + "': nothing that a cluster does")));
  if (request.method != Method::kPost) return responder.respond(wrong_method("POST"));
  if (service.cluster == nullptr) return responder.respond(structured_error(in_none()));
  Result<std::string> node = parse_node(request, switches ? "to" : "node");
  if (!node) return responder.respond(structured_error(node.error()));
  if (switches) return switch_over(service, *std::move(node), std::move(responder));
  if (node->empty()) {
    return responder.respond(
        structured_error(Error(Code::kInvalid, "'node' says which one is removed")));
  }
  change(service, std::move(responder),
         [&service, gone = *std::move(node)] { return service.cluster->remove(gone); });
}

}  // namespace offprint::server
