#pragma once

#include <string_view>

#include "base/result.h"
#include "database/request.h"

namespace offprint::server {

// A moment as clients write it: a bookmark, a time ("2026-01-02T03:04:05Z", or seconds or
// milliseconds since 1970), or "tag:NAME". kInvalid.
Result<database::Moment> parse_moment(std::string_view text);

}  // namespace offprint::server
