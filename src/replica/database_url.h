#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace offprint::replica {

// The URL as it is stored and shown: without user, password and slash at the end. kInvalid: not
// http or https, or with a query.
Result<std::string> normalize_url(const std::string& url);
// What is below a database's URL: "http://HOST/db/NAME/stream?from=…"; the parameters of a
// publication stay behind it.
std::string address_below(const std::string& url, std::string_view action,
                          std::string_view parameter = {});

}  // namespace offprint::replica
