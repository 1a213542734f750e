#include "base/result.h"

#include <cerrno>
#include <system_error>

#include <fmt/format.h>

namespace offprint {

std::string_view code_name(Code code) {
  switch (code) {
    case Code::kInvalid:
      return "invalid";
    case Code::kSql:
      return "sql";
    case Code::kUnauthorized:
      return "unauthorized";
    case Code::kForbidden:
      return "forbidden";
    case Code::kNotFound:
      return "not_found";
    case Code::kConflict:
      return "conflict";
    case Code::kTooLarge:
      return "too_large";
    case Code::kBusy:
      return "busy";
    case Code::kBehind:
      return "behind";
    case Code::kTimeout:
      return "timeout";
    case Code::kUnavailable:
      return "unavailable";
    case Code::kNotPrimary:
      return "not_primary";
    case Code::kFull:
      return "full";
    case Code::kUnknown:
      return "unknown";
    case Code::kCorrupt:
      return "corrupt";
    case Code::kIo:
      return "io";
    case Code::kInternal:
      return "internal";
  }
  return "internal";
}

Error Error::with_context(std::string_view context) const {
  return Error(code_, fmt::format("{}: {}", context, message_), sqlite_code_);
}

Error io_error(std::string_view what, int error_number) {
  Code code = error_number == ENOSPC || error_number == EDQUOT ? Code::kFull
              : error_number == ENOENT                         ? Code::kNotFound
                                                               : Code::kIo;
  return Error(code, fmt::format("{}: {}", what, std::generic_category().message(error_number)));
}

}  // namespace offprint
