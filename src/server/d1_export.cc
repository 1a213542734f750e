#include "server/d1_export.h"

#include <algorithm>

#include "base/clock.h"
#include "server/d1_databases.h"
#include "server/d1_envelope.h"
#include "server/json_reader.h"
#include "server/json_writer.h"
#include "server/signed_target.h"
#include "server/text_download.h"

namespace offprint::server::d1 {
namespace {

constexpr std::int64_t kLinkLifetimeMs = 3'600'000;
constexpr std::size_t kTablesMax = 1000;

StreamKey key_of(const Service& service) { return service.streams.derived_key("d1 export"); }

std::string percent_encoded(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string encoded;
  for (char c : text) {
    bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '_' || c == '-' || c == '.';
    auto byte = static_cast<unsigned char>(c);
    if (is_plain) {
      encoded += c;
    } else {
      encoded += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return encoded;
}

// dump_options as parameters of a dump's address. A script for D1 brings no transaction of its own.
Result<std::string> parse_export(std::string& body) {
  std::string parameters = "transaction=0";
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto object, reader.parse_object(body));
  OFFPRINT_TRY_ASSIGN(auto format, json_string_field(object, "output_format"));
  if (format != "polling") return fail(Code::kInvalid, "'output_format' must be polling");
  OFFPRINT_TRY_ASSIGN(auto options, json_object_field(object, "dump_options"));
  if (!options) return parameters;
  OFFPRINT_TRY_ASSIGN(auto no_data, json_bool_field(*options, "no_data"));
  OFFPRINT_TRY_ASSIGN(auto no_schema, json_bool_field(*options, "no_schema"));
  if (no_data == true && no_schema == true)
    return fail(Code::kInvalid, "'no_data' and 'no_schema' together leave nothing to export");
  if (no_data == true) parameters += "&data=0";
  if (no_schema == true) parameters += "&schema=0";
  OFFPRINT_TRY_ASSIGN(auto tables, json_array_field(*options, "tables"));
  if (!tables) return parameters;
  if (tables->size() > kTablesMax)
    return fail(Code::kTooLarge, "'tables' may name 1000 tables at most");
  for (auto element : *tables) {
    std::string_view table;
    if (element.get(table) != simdjson::SUCCESS)
      return fail(Code::kInvalid, "'tables' must be an array of strings");
    parameters += "&table=" + percent_encoded(table);
  }
  return parameters;
}

}  // namespace

void start_export(Service& service, const database::DatabaseInfo& info, HttpRequest& request,
                  Responder responder) {
  Result<std::string> parameters = parse_export(request.body);
  if (!parameters) return responder.respond(rest_error(parameters.error()));
  std::string filename = info.name + ".sql";
  std::replace(filename.begin(), filename.end(), '/', '-');
  std::string target =
      std::string(kExportPath) + "/" + uuid_of(info) + "/" + filename + "?" + *parameters;
  target = sign_target(key_of(service), std::move(target), unix_time_ms() + kLinkLifetimeMs);
  std::string result = R"({"success":true,"type":"export","at_bookmark":")" + info.bookmark.text() +
                       R"(","status":"complete","messages":[],"result":{"filename":)";
  append_json_string(result, filename);
  result += ",\"signed_url\":";
  append_json_string(result, absolute_url(request, target));
  result += "}}";
  responder.respond(rest_result(result));
}

void download_export(Service& service, const Address& address, std::string_view target,
                     Responder responder) {
  if (!is_signed_target(key_of(service), target, unix_time_ms())) {
    return responder.respond(rest_error(403, RestCode::kUnauthorized,
                                        "the link has expired or is not complete; export again"));
  }
  Result<database::DatabaseInfo> info = find_database(service, address.segments[4]);
  if (!info) return responder.respond(rest_error(info.error()));
  auto name = database::DatabaseName::parse(info->name);
  if (!name) return responder.respond(rest_error(name.error()));
  handle_dump(service, *name, address, std::move(responder));
}

}  // namespace offprint::server::d1
