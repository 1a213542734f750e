#include "server/errors.h"

#include <algorithm>

#include "server/json_writer.h"
#include "sqlite/connection.h"

namespace offprint::server {
namespace {

// The code at the head of a message such as "SQL_NO_STATEMENT: …"; empty when there is none.
std::string_view leading_code(std::string_view message) {
  std::size_t end = message.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ_");
  if (end == std::string_view::npos) end = message.size();
  if (end < 4 || message.substr(0, end).find('_') == std::string_view::npos) return {};
  if (end < message.size() && message[end] != ':') return {};
  return message.substr(0, end);
}

std::string upper(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  return result;
}

}  // namespace

ErrorText error_text(const Error& error) {
  ErrorText text;
  text.message = error.message();
  std::string_view code = leading_code(error.message());
  if (error.sqlite_code() != 0) {
    text.code = sqlite::base_name(error.sqlite_code());
    text.extended_code = sqlite::extended_name(error.sqlite_code());
  } else if (!code.empty()) {
    text.code = text.extended_code = code;
    std::string_view rest = std::string_view(error.message()).substr(code.size());
    rest.remove_prefix(std::min(rest.find_first_not_of(": "), rest.size()));
    if (!rest.empty()) text.message = rest;
  } else {
    text.code = text.extended_code = upper(code_name(error.code()));
  }
  return text;
}

int http_status(const Error& error) {
  // Those that are more particular than their code.
  if (error.message().starts_with("IDEMPOTENCY_KEY_REUSED")) return 422;
  if (error.message().starts_with("RESULT_NOT_KEPT")) return 410;
  switch (error.code()) {
    case Code::kInvalid:
    case Code::kSql:
      return 400;
    case Code::kUnauthorized:
      return 401;
    case Code::kForbidden:
      return 403;
    case Code::kNotFound:
      return 404;
    case Code::kConflict:
      return 409;
    case Code::kTooLarge:
      return 413;
    case Code::kBusy:
    case Code::kBehind:
    case Code::kTimeout:
    case Code::kUnavailable:
    case Code::kNotPrimary:
      return 503;
    case Code::kFull:
      return 507;
    case Code::kUnknown:
    case Code::kCorrupt:
    case Code::kIo:
    case Code::kInternal:
      return 500;
  }
  return 500;
}

bool only_primary_knows(const Error& error) {
  return error.code() == Code::kNotPrimary || error.code() == Code::kNotFound;
}

Response plain_error(const Error& error) {
  ErrorText text = error_text(error);
  Response response = error_response(http_status(error), text.code, text.message);
  response.for_primary = only_primary_knows(error);
  return response;
}

Response structured_error(const Error& error) {
  ErrorText text = error_text(error);
  Response response;
  response.status = http_status(error);
  response.for_primary = only_primary_knows(error);
  std::string& body = response.body;
  body += R"({"error":{"code":)";
  append_json_string(body, text.code);
  body += R"(,"extended_code":)";
  append_json_string(body, text.extended_code);
  body += R"(,"message":)";
  append_json_string(body, text.message);
  body += "}}\n";
  if (response.status == 503) response.headers = "Retry-After: 1\r\n";
  return response;
}

Response wrong_method(std::string_view allowed) {
  Response response =
      structured_error(Error(Code::kInvalid, "METHOD_NOT_ALLOWED: use " + std::string(allowed)));
  response.status = 405;
  response.headers += "Allow: " + std::string(allowed) + "\r\n";
  return response;
}

}  // namespace offprint::server
