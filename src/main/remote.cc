#include "main/remote.h"

#include <cstdio>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "database/name.h"
#include "main/commands.h"
#include "server/json_reader.h"

namespace offprint {
namespace {

constexpr std::size_t kBodyMax = 256 << 20;
constexpr int kWaitMs = 100;

bool is_success(int status) { return status >= 200 && status < 300; }

Code code_of_status(int status) {
  switch (status) {
    case 401:
      return Code::kUnauthorized;
    case 403:
      return Code::kForbidden;
    case 404:
      return Code::kNotFound;
    case 409:
      return Code::kConflict;
    case 413:
      return Code::kTooLarge;
    case 503:
      return Code::kBusy;
    case 507:
      return Code::kFull;
    default:
      return status >= 500 ? Code::kInternal : Code::kInvalid;
  }
}

// {"error":{"message":…}} or {"message":…} or {"error":…}; the body itself when it is another text.
std::string message_of(std::string body) {
  std::string raw = body.substr(0, 500);
  server::JsonReader reader;
  Result<simdjson::dom::element> root = reader.parse(body);
  if (!root) return raw;
  simdjson::dom::element error;
  simdjson::dom::object object;
  if (root->get(object) != simdjson::SUCCESS) return raw;
  if (object["error"].get(error) == simdjson::SUCCESS && error.is_object()) {
    if (std::string text = json_text(error, "message"); !text.empty()) return text;
  }
  for (const char* name : {"message", "error"}) {
    if (std::string text = json_text(*root, name); !text.empty()) return text;
  }
  return raw;
}

std::string_view advice(Code code) {
  switch (code) {
    case Code::kUnavailable:
      return "Is the server running? `offprint serve` starts one; --server or OFFPRINT_SERVER "
             "names another.";
    case Code::kUnauthorized:
      return "Give a token with --token or OFFPRINT_TOKEN.";
    case Code::kBusy:
    case Code::kTimeout:
      return "Try again; the server's log says more if it lasts.";
    case Code::kFull:
      return "Make space on that disk, then try again.";
    default:
      return {};
  }
}

}  // namespace

void add_server_option(CLI::App& command, RemoteOptions& options) {
  command.add_option("--server", options.server, "the server's URL")
      ->envname("OFFPRINT_SERVER")
      ->capture_default_str();
}

void add_token_option(CLI::App& command, RemoteOptions& options) {
  command.add_option("--token", options.token, "token for the server, if it asks for one")
      ->envname("OFFPRINT_TOKEN");
  command
      .add_option("--ca", options.ca_file,
                  "PEM file with the certificates that a server's own is trusted by")
      ->envname("OFFPRINT_CA");
}

Result<std::string> parse_url(std::string_view text) {
  std::string url(text);
  std::size_t scheme = url.find("://");
  if (scheme == std::string::npos) {
    url = "http://" + url;
  } else if (url.starts_with("libsql://")) {
    url = "https://" + url.substr(scheme + 3);
  } else if (!url.starts_with("http://") && !url.starts_with("https://")) {
    return fail(Code::kInvalid, fmt::format("'{}' is not an http:// or https:// URL", text));
  }
  if (url.find('?') == std::string::npos) {
    while (url.ends_with('/')) url.pop_back();
  }
  std::size_t host = url.find("://") + 3;
  std::string_view authority =
      std::string_view(url).substr(host, url.find_first_of("/?#", host) - host);
  if (authority.empty()) return fail(Code::kInvalid, fmt::format("'{}' names no host", text));
  if (authority.find('@') != std::string_view::npos) {
    return fail(Code::kInvalid,
                "a URL holds no secrets here: give a token with --token or OFFPRINT_TOKEN");
  }
  return url;
}

Result<std::string> database_url(const RemoteOptions& options, const std::string& name_or_url) {
  if (name_or_url.find("://") != std::string::npos) return parse_url(name_or_url);
  OFFPRINT_TRY_ASSIGN(auto name, database::DatabaseName::parse(name_or_url));
  OFFPRINT_TRY_ASSIGN(std::string server, parse_url(options.server));
  return server + "/db/" + name.text();
}

std::string url_encoded(std::string_view text) {
  std::string encoded;
  for (char c : text) {
    bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '-' || c == '_' || c == '.' || c == '~';
    encoded += is_plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return encoded;
}

std::string json_text(simdjson::dom::element object, std::string_view name) {
  simdjson::dom::element value;
  if (!object.is_object() || object[name].get(value) != simdjson::SUCCESS || value.is_null())
    return {};
  std::string_view text;
  if (value.get(text) == simdjson::SUCCESS) return std::string(text);
  return simdjson::minify(value);
}

Result<> Remote::start(const HttpCall& call) {
  if (!http_) {
    OFFPRINT_TRY_ASSIGN(http_, replica::HttpClient::create());
  }
  replica::HttpClient::Request request;
  request.url = call.url;
  request.ca_file = ca_file_;
  if (call.method != "GET" && call.method != "POST") request.method = call.method;
  if (!token_.empty()) request.headers.push_back("Authorization: Bearer " + token_);
  if (!at_.empty()) request.headers.push_back("Offprint-At: " + at_);
  if (may_break_) request.headers.emplace_back("Offprint-Break: yes");
  if (call.body_file != nullptr) {
    request.headers.emplace_back("Content-Type: application/octet-stream");
    request.body_file = call.body_file;
    request.body_file_size = call.body_file_size;
  } else if (call.method == "POST" || call.method == "PATCH" || call.method == "PUT") {
    request.headers.emplace_back("Content-Type: application/json");
    request.body.emplace(call.body.begin(), call.body.end());
  }
  return http_->start(std::move(request));
}

Result<> Remote::take(const HttpCall& call, HttpAnswer& answer) {
  Bytes& received = http_->received();
  answer.length = http_->length();
  if (call.sink && is_success(http_->status())) {
    OFFPRINT_TRY(call.sink(received));
  } else if (answer.body.size() + received.size() > kBodyMax) {
    return fail(Code::kTooLarge,
                fmt::format("{}: the answer is larger than {} MiB", call.url, kBodyMax >> 20));
  } else {
    answer.body += as_text(received);
  }
  received.clear();
  return {};
}

Result<HttpAnswer> Remote::request(const HttpCall& call) {
  OFFPRINT_TRY(start(call));
  HttpAnswer answer;
  for (;;) {
    Result<replica::HttpClient::Event> event = http_->wait(kWaitMs);
    if (!event) return fail(event.error().with_context(call.url));
    if (call.sent) call.sent(http_->sent());
    if (*event == replica::HttpClient::Event::kData) OFFPRINT_TRY(take(call, answer));
    if (*event == replica::HttpClient::Event::kEnd) break;
  }
  int status = http_->status();
  if (is_success(status)) return answer;
  std::string message = message_of(answer.body);
  if (message.empty()) message = fmt::format("{}: status {}", call.url, status);
  return fail(code_of_status(status), message);
}

int report(const Error& error) {
  std::fflush(stdout);
  std::string text = "offprint: " + error.message();
  if (std::string_view next = advice(error.code()); !next.empty())
    text += fmt::format("\n{}", next);
  std::fprintf(stderr, "%s\n", text.c_str());
  switch (error.code()) {
    case Code::kUnavailable:
      return kExitUnreachable;
    case Code::kUnauthorized:
    case Code::kForbidden:
      return kExitRefused;
    default:
      return kExitFailed;
  }
}

int report_usage(const std::string& message) {
  std::fprintf(stderr, "offprint: %s\n", message.c_str());
  return kExitUsage;
}

}  // namespace offprint
