#pragma once

#include <optional>

#include <simdjson.h>

#include "sqlite/connection.h"

namespace offprint::server {

// The SQL value that null, true, false, a number or a string stands for; nothing of arrays and
// objects. Integers above 2^63 - 1 are REAL, as SQLite reads such a literal.
std::optional<sqlite::Value> json_scalar(simdjson::dom::element element);

}  // namespace offprint::server
