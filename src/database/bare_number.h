#pragma once

#include <optional>
#include <string_view>

#include "sqlite/connection.h"

namespace offprint::database {

// The number that a text is when it is written as JSON writes numbers ("-7", "0.5", "1e9"): an
// INTEGER without point and exponent, else the nearest REAL, also an infinite one. Nothing for
// everything else: blanks, a plus, leading zeros, and integers that no 64 bits hold.
std::optional<sqlite::Value> bare_number(std::string_view text);

}  // namespace offprint::database
