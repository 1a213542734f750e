#pragma once

#include <string>
#include <string_view>

#include <simdjson.h>

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
};

// --server or OFFPRINT_SERVER, --token or OFFPRINT_TOKEN. `options` must outlive the command.
void add_server_option(CLI::App& command, RemoteOptions& options);
void add_token_option(CLI::App& command, RemoteOptions& options);

// A server's URL without its last slash, with "http://" where it names no scheme. kInvalid: not a URL; a password in it.
Result<std::string> parse_url(std::string_view text);
// The URL of a database that is given by its name (on options.server) or its URL. kInvalid: neither.
Result<std::string> database_url(const RemoteOptions& options, const std::string& name_or_url);

// "name" of a JSON object as text; numbers and flags as they are written; empty when it is absent.
std::string json_text(simdjson::dom::element object, std::string_view name);

// What an answer that is not ok() means; the message is the server's own.
Error error_of(const replica::HttpAnswer& answer);

// One request that must succeed. Errors: as HttpClient::perform, and error_of().
Result<replica::HttpAnswer> request(replica::HttpClient& client, const replica::HttpCall& call);

// Prints the error and what to do next on standard error; returns the exit code that belongs to it.
int report(const Error& error);
// The same for a wrong use of the command line.
int report_usage(const std::string& message);

}  // namespace offprint
