#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <simdjson.h>

#include "base/bytes.h"
#include "base/result.h"
#include "replica/http_client.h"

namespace CLI {
class App;
}

// How commands speak to a server, and how they report what it says.
namespace offprint {

struct RemoteOptions {
  std::string server = "http://127.0.0.1:8080";
  std::string token;
  std::string at;          // a moment: requests ask for the state of then
  bool may_break = false;  // publications
  std::string ca_file;     // PEM; empty: the system's certificates
};

// --server or OFFPRINT_SERVER; --token or OFFPRINT_TOKEN and --ca or OFFPRINT_CA. `options` must
// outlive the command.
void add_server_option(CLI::App& command, RemoteOptions& options);
void add_token_option(CLI::App& command, RemoteOptions& options);

// A server's URL without its last slash, with "http://" where it names no scheme. kInvalid: not a
// URL; a password in it.
Result<std::string> parse_url(std::string_view text);
// The URL of a database that is given by its name (on options.server) or its URL. kInvalid:
// neither.
Result<std::string> database_url(const RemoteOptions& options, const std::string& name_or_url);

// A value of a parameter, percent-encoded.
std::string url_encoded(std::string_view text);

// "name" of a JSON object as text; numbers and flags as they are written; empty when it is absent.
std::string json_text(simdjson::dom::element object, std::string_view name);

struct HttpCall {
  std::string method = "GET";
  std::string url;
  std::string body;                // JSON
  std::FILE* body_file = nullptr;  // instead: a file of body_file_size bytes
  std::uint64_t body_file_size = 0;
  // Takes the body of an answer of success piece by piece; an error ends the request with it.
  std::function<Result<>(ByteView)> sink;
  // Told now and then how many bytes of the body have been sent.
  std::function<void(std::uint64_t)> sent;
};
struct HttpAnswer {
  std::string body;          // without a sink
  std::uint64_t length = 0;  // of the body as announced; 0: not said
};

// Sends requests, one after the other, over a kept connection. Thread: one.
class Remote {
 public:
  explicit Remote(const RemoteOptions& options)
      : token_(options.token),
        at_(options.at),
        may_break_(options.may_break),
        ca_file_(options.ca_file) {}
  // One request that must succeed. kUnavailable: not reachable, or the connection broke; else what
  // the server's status means, with the server's own message.
  Result<HttpAnswer> request(const HttpCall& call);

 private:
  Result<> start(const HttpCall& call);
  Result<> take(const HttpCall& call, HttpAnswer& answer);

  const std::string token_;
  const std::string at_;
  const bool may_break_;
  const std::string ca_file_;
  std::unique_ptr<replica::HttpClient> http_;
};

// Prints the error and what to do next on standard error; returns the exit code that belongs to it.
int report(const Error& error);
// The same for a wrong use of the command line.
int report_usage(const std::string& message);

}  // namespace offprint
