#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "server/http_message.h"

// How the REST interface of D1 wraps everything it answers. docs/protocol/d1.md, "REST".
namespace offprint::server::d1 {

// Numbers that its clients know.
enum class RestCode {
  kNoRoute = 7003,
  kMalformed = 7400,
  kNotFound = 7404,
  kSql = 7500,
  kNameTaken = 7502,
  kUnauthorized = 10000,
};

// {"success":true,"result":…}. `result` is JSON; `info`, when given, becomes result_info.
Response rest_result(std::string_view result, std::string_view info = {});
// {"success":false,"errors":[{"code","message"}]}, its number and status as the error says.
Response rest_error(const Error& error, std::string_view result = "null");
Response rest_error(int status, RestCode code, std::string_view message,
                    std::string_view result = "null");

}  // namespace offprint::server::d1
