#include "server/tokens_api.h"

#include "base/clock.h"
#include "server/errors.h"
#include "server/json_reader.h"
#include "server/json_writer.h"
#include "server/revocations.h"
#include "server/token.h"

namespace offprint::server {
namespace {

constexpr std::int64_t kKeptS = 366LL * 24 * 3600;  // an id without a time
constexpr std::int64_t kTimeMax = 400'000'000'000;

Result<std::int64_t> time_field(simdjson::dom::object object, std::string_view name,
                                std::int64_t otherwise) {
  OFFPRINT_TRY_ASSIGN(auto seconds, json_integer_field(object, name));
  if (seconds && (*seconds < 0 || *seconds > kTimeMax))
    return fail(Code::kInvalid, "'" + std::string(name) + "' is no time in seconds");
  return seconds.value_or(otherwise);
}

Result<database::Revocation> parse_revocation(std::string& body) {
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto object, reader.parse_object(body));
  OFFPRINT_TRY_ASSIGN(auto id, json_string_field(object, "jti"));
  OFFPRINT_TRY_ASSIGN(auto name, json_string_field(object, "database"));
  if (id.has_value() == name.has_value())
    return fail(Code::kInvalid, "either 'jti' or 'database' is needed");
  std::int64_t now = unix_time_ms() / 1000;
  database::Revocation revocation;
  if (id) {
    if (id->empty() || id->size() > kTokenIdMax)
      return fail(Code::kInvalid, "'jti' is empty or too long");
    revocation.token_id = *id;
    OFFPRINT_TRY_ASSIGN(revocation.until_s, time_field(object, "until", now + kKeptS));
    if (revocation.until_s <= now)
      return fail(Code::kInvalid, "'until' is over: the token has expired already");
    return revocation;
  }
  if (*name != "*") OFFPRINT_TRY(database::DatabaseName::parse(*name));
  revocation.database = *name;
  // Those of this very second, too.
  OFFPRINT_TRY_ASSIGN(revocation.not_before_s, time_field(object, "issued_before", now + 1));
  return revocation;
}

void append_revocation(std::string& to, const database::Revocation& revocation) {
  bool is_token = !revocation.token_id.empty();
  to += is_token ? "{\"jti\":" : "{\"database\":";
  append_json_string(to, is_token ? revocation.token_id : revocation.database);
  to += is_token ? ",\"until\":" : ",\"issued_before\":";
  append_integer(to, is_token ? revocation.until_s : revocation.not_before_s);
  to += '}';
}

Error not_here() {
  return Error(Code::kConflict, "this server asks for no tokens; see the option --auth-keys");
}

}  // namespace

void handle_revoke(Service& service, HttpRequest& request, Responder responder) {
  // At a copy's primary: from there it comes to all copies.
  if (service.has_copies())
    return responder.respond(structured_error(not_primary("tokens are revoked at the primary")));
  if (service.revocations == nullptr) return responder.respond(structured_error(not_here()));
  Result<database::Revocation> revocation = parse_revocation(request.body);
  if (!revocation) return responder.respond(structured_error(revocation.error()));
  respond_from_helper(service, std::move(responder), [&service, revocation = *revocation] {
    if (Result<> added = service.revocations->add(revocation); !added)
      return structured_error(added.error());
    Response response;
    append_revocation(response.body, revocation);
    response.body += '\n';
    return response;
  });
}

void handle_list_revoked(Service& service, Responder responder) {
  if (service.revocations == nullptr) return responder.respond(structured_error(not_here()));
  Response response;
  response.body = "{\"revoked\":[";
  bool first = true;
  for (const database::Revocation& one : service.revocations->list()) {
    if (!std::exchange(first, false)) response.body += ',';
    append_revocation(response.body, one);
  }
  response.body += "]}\n";
  responder.respond(std::move(response));
}

}  // namespace offprint::server
