#include "server/d1_envelope.h"

#include "server/d1_query.h"
#include "server/errors.h"
#include "server/json_writer.h"

namespace offprint::server::d1 {
namespace {

RestCode rest_code(const Error& error) {
  if (error.sqlite_code() != 0) return RestCode::kSql;
  switch (error.code()) {
    case Code::kNotFound:
      return RestCode::kNotFound;
    case Code::kConflict:
      return RestCode::kNameTaken;
    case Code::kInvalid:
      return RestCode::kMalformed;
    case Code::kUnauthorized:
    case Code::kForbidden:
      return RestCode::kUnauthorized;
    default:
      return RestCode::kSql;
  }
}

}  // namespace

Response rest_result(std::string_view result, std::string_view info) {
  Response response;
  std::string& body = response.body;
  body.reserve(result.size() + info.size() + 80);
  body = R"({"success":true,"errors":[],"messages":[],"result":)";
  body += result;
  if (!info.empty()) {
    body += ",\"result_info\":";
    body += info;
  }
  body += "}\n";
  return response;
}

Response rest_error(int status, RestCode code, std::string_view message, std::string_view result) {
  Response response;
  response.status = status;
  if (status == 503) response.headers = "Retry-After: 1\r\n";
  std::string& body = response.body;
  body = R"({"success":false,"errors":[{"code":)";
  append_integer(body, static_cast<int>(code));
  body += ",\"message\":";
  append_json_string(body, message);
  body += "}],\"messages\":[],\"result\":";
  body += result;
  body += "}\n";
  return response;
}

Response rest_error(const Error& error, std::string_view result) {
  // A statement that the policy refuses is SQL's failure, not a missing right of the token.
  int status =
      error.sqlite_code() != 0 && error.code() == Code::kForbidden ? 400 : http_status(error);
  Response response = rest_error(status, rest_code(error), error_message(error), result);
  response.for_primary = only_primary_knows(error);
  return response;
}

}  // namespace offprint::server::d1
