#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "server/http_message.h"

// Errors as clients read them. Codes: docs/protocol/http.md, "Errors".
namespace offprint::server {

struct ErrorText {
  std::string code;  // SQLite's base name ("SQLITE_CONSTRAINT"), or one of ours ("NOT_FOUND",
                     // "ARGS_INVALID")
  std::string
      extended_code;  // "SQLITE_CONSTRAINT_UNIQUE"; the same as `code` where there is no finer one
  std::string message;
};

ErrorText error_text(const Error& error);
int http_status(const Error& error);
// A node that has copies cannot say more: it only has copies, or does not have this one (yet).
bool only_primary_knows(const Error& error);
// The plain form, {"error":message,"message":message,"code":code}: what every Hrana client reads.
Response plain_error(const Error& error);
// The form of /query and of the management interface: {"error":{"code","extended_code","message"}}.
Response structured_error(const Error& error);
// The same with 405 and the methods that there are: "GET, POST".
Response wrong_method(std::string_view allowed);

}  // namespace offprint::server
