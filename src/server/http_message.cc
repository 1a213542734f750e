#include "server/http_message.h"

#include "server/json_writer.h"

namespace offprint::server {

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (lower(a[i]) != lower(b[i])) return false;
  }
  return true;
}

std::string_view HttpRequest::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (equal_ignoring_case(key, name)) return value;
  }
  return {};
}

Responder::~Responder() {
  if (client_) client_->respond(error_response(500, "INTERNAL", "the request was dropped"));
}

void Responder::respond(Response response) {
  std::exchange(client_, nullptr)->respond(std::move(response));
}

std::string_view status_reason(int status) {
  switch (status) {
    case 101:
      return "Switching Protocols";
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 204:
      return "No Content";
    case 307:
      return "Temporary Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 410:
      return "Gone";
    case 411:
      return "Length Required";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 426:
      return "Upgrade Required";
    case 431:
      return "Request Header Fields Too Large";
    case 422:
      return "Unprocessable Content";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    case 505:
      return "HTTP Version Not Supported";
    case 507:
      return "Insufficient Storage";
    default:
      return "Status";
  }
}

Response error_response(int status, std::string_view code, std::string_view message) {
  Response response;
  response.status = status;
  std::string& body = response.body;
  body += "{\"error\":";
  append_json_string(body, message);
  body += ",\"message\":";
  append_json_string(body, message);
  body += ",\"code\":";
  append_json_string(body, code);
  body += "}";
  if (status == 503) response.headers = "Retry-After: 1\r\n";
  return response;
}

}  // namespace offprint::server
