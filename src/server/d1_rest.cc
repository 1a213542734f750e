#include "server/d1_rest.h"

#include <utility>

#include "server/d1_databases.h"
#include "server/d1_envelope.h"
#include "server/d1_export.h"
#include "server/d1_graphql.h"
#include "server/d1_import.h"
#include "server/d1_query.h"
#include "server/d1_time_travel.h"
#include "server/gate.h"
#include "server/json_writer.h"

namespace offprint::server::d1 {
namespace {

Error forbidden(const database::DatabaseName& name) {
  return Error(Code::kForbidden,
               "TOKEN_FORBIDS: the token does not allow this on database '" + name.text() + "'");
}

// What clients ask of an account before they come to databases. Who is asking is not known here, so
// there is one account, whatever number its address has.
constexpr std::string_view kAccount =
    R"({"id":"00000000000000000000000000000000","name":"offprint","type":"standard"})";

Response no_route(const HttpRequest& request) {
  return rest_error(404, RestCode::kNoRoute,
                    "Could not route to " + std::string(request.target) +
                        ", perhaps your object identifier is invalid?");
}

Response method_not_allowed(std::string_view allowed) {
  Response response = rest_error(405, RestCode::kNoRoute, "use " + std::string(allowed));
  response.headers += "Allow: " + std::string(allowed) + "\r\n";
  return response;
}

// Which right the rest of the address asks for; nothing: any SQL, which is looked at when it is
// compiled.
std::optional<database::Verb> verb_of(const HttpRequest& request, std::string_view action) {
  if (action == "query" || action == "raw" || action == "time_travel/bookmark") return std::nullopt;
  if (action == "export") return database::Verb::kSnapshot;
  if (action.empty() && request.is_get()) return std::nullopt;
  return database::Verb::kAdmin;
}

Response query_response(const Service& service, const database::DatabaseName& name, Answer answer) {
  if (answer.error) return rest_error(*answer.error, "[]");
  std::uint64_t size = database_size(service, name);
  std::string list = "[";
  for (const QueryResult& result : answer.results) {
    list += list.size() > 1 ? ",{\"results\":" : "{\"results\":";
    list += result.rows;
    list += ",\"success\":true,\"meta\":";
    append_meta(list, service, name, result, size);
    list += '}';
  }
  list += ']';
  return rest_result(list);
}

void handle_query(Service& service, const database::DatabaseName& name, HttpRequest& request,
                  RunOptions::Rows rows, Responder responder) {
  Result<QueryList> list = parse_rest_queries(request.body);
  if (!list) return responder.respond(rest_error(list.error(), "[]"));
  RunOptions options;
  options.rows = rows;
  options.result_for_each_statement = true;
  run_queries(
      service, name, request, *std::move(list), options,
      [&service, name](Answer answer) { return query_response(service, name, std::move(answer)); },
      std::move(responder));
}

void route_account(HttpRequest& request, const std::string& path, Responder responder) {
  if (path == "user/tokens/verify") {
    return responder.respond(
        rest_result(R"({"id":"00000000000000000000000000000000","status":"active"})"));
  }
  if (path == "user") {
    return responder.respond(
        rest_result(R"({"id":"00000000000000000000000000000000","email":"nobody@localhost"})"));
  }
  std::string account(kAccount);
  if (path == "accounts" || path == "memberships") {
    std::string item = path == "accounts"
                           ? account
                           : R"({"id":"00000000000000000000000000000000","status":"accepted",)"
                             R"("account":)" +
                                 account + "}";
    return responder.respond(rest_result(
        "[" + item + "]", R"({"page":1,"per_page":20,"count":1,"total_count":1,"total_pages":1})"));
  }
  responder.respond(no_route(request));
}

void route_database(Service& service, const database::DatabaseInfo& info, HttpRequest& request,
                    const Address& address, Responder responder) {
  std::string action = address.path_from(7);
  bool is_post = request.method == Method::kPost;
  auto name = database::DatabaseName::parse(info.name);
  if (!name) return responder.respond(rest_error(name.error()));
  const Access& access = access_of(service, request);
  auto verb = verb_of(request, action);
  if (verb ? !access.allows(*name, *verb) : !access.allows_sql(*name))
    return responder.respond(rest_error(forbidden(*name)));
  if (action.empty()) {
    if (request.is_get())
      return describe_database(service, info, request, address, std::move(responder));
    if (request.method == Method::kDelete)
      return delete_database(service, info, std::move(responder));
    if (request.method == Method::kPut || request.method == Method::kPatch)
      return update_database(service, info, request, std::move(responder));
    return responder.respond(method_not_allowed("GET, PUT, PATCH, DELETE"));
  }
  if (action == "time_travel/bookmark") {
    if (!request.is_get()) return responder.respond(method_not_allowed("GET"));
    return time_travel_bookmark(service, *name, address, std::move(responder));
  }
  if (action == "query" || action == "raw" || action == "export" || action == "import" ||
      action == "time_travel/restore") {
    if (!is_post) return responder.respond(method_not_allowed("POST"));
    if (action == "export") return start_export(service, info, request, std::move(responder));
    if (action == "import")
      return handle_import_action(service, info, request, std::move(responder));
    if (action == "time_travel/restore")
      return time_travel_restore(service, *name, address, std::move(responder));
    return handle_query(service, *name, request,
                        action == "raw" ? RunOptions::Rows::kArrays : RunOptions::Rows::kObjects,
                        std::move(responder));
  }
  responder.respond(no_route(request));
}

}  // namespace

bool is_rest_request(const Address& address) {
  return address.segments.size() >= 2 && address.segments[0] == "client" &&
         address.segments[1] == "v4";
}

void handle_rest(Service& service, HttpRequest& request, const Address& address,
                 std::shared_ptr<BodyReceiver> receiver, Responder responder) {
  // Databases have their numbers, and jobs, at the primary.
  if (service.has_copies())
    return responder.respond(rest_error(not_primary("this interface is the primary's")));
  const auto& segments = address.segments;
  std::string path = address.path_from(2);
  if (path == "graphql") {
    if (request.method != Method::kPost) return responder.respond(method_not_allowed("POST"));
    if (!access_of(service, request).allows_somewhere(database::Verb::kDataRead))
      return responder.respond(rest_error(Error(Code::kForbidden, "TOKEN_FORBIDS: no reading")));
    return handle_graphql(service, request, std::move(responder));
  }
  if (segments.size() == 6 && segments[2] == "d1" && segments[3] == "export") {
    if (!request.is_get()) return responder.respond(method_not_allowed("GET"));
    return download_export(service, address, request.target, std::move(responder));
  }
  if (segments.size() == 6 && segments[2] == "d1" && segments[3] == "upload") {
    if (request.method != Method::kPut) return responder.respond(method_not_allowed("PUT"));
    return handle_upload(service, address, std::move(receiver), std::move(responder));
  }
  bool below_account = segments.size() >= 6 && segments[2] == "accounts" && segments[4] == "d1" &&
                       segments[5] == "database";
  if (!below_account) {
    if (!request.is_get()) return responder.respond(no_route(request));
    return route_account(request, path, std::move(responder));
  }
  if (segments.size() == 6) {
    if (request.is_get()) return list_databases(service, request, address, std::move(responder));
    if (request.method == Method::kPost)
      return create_database(service, request, std::move(responder));
    return responder.respond(method_not_allowed("GET, POST"));
  }
  Result<database::DatabaseInfo> info = find_database(service, segments[6]);
  if (!info && service.authenticator != nullptr &&
      !access_of(service, request).allows_everywhere(database::Verb::kAdmin))
    info = fail(Code::kForbidden, "TOKEN_FORBIDS: the token does not allow this");
  if (!info) return responder.respond(rest_error(info.error()));
  route_database(service, *info, request, address, std::move(responder));
}

}  // namespace offprint::server::d1
