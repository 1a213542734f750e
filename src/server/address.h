#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "database/name.h"

namespace offprint::server {

// A request's target, taken apart. docs/protocol/http.md, "Addresses".
struct Address {
  std::vector<std::string> segments;  // of the path, percent-decoded, without empty ones at the end
  std::vector<std::pair<std::string, std::string>> parameters;

  // The first parameter of this name; nothing when there is none.
  std::optional<std::string_view> parameter(std::string_view name) const;
  // The parameter as a flag, 1 or 0 (also true, false; alone it is 1). kInvalid: something else.
  Result<bool> flag(std::string_view name, bool otherwise) const;
  // The path again, from a segment on: "v2/pipeline".
  std::string path_from(std::size_t first) const;
};

// kInvalid: a bad percent escape, a NUL, or too many segments.
Result<Address> parse_address(std::string_view target);

// "a=b&c": percent-decoded, "+" read as a blank. kInvalid: a bad escape, or more than `count_max`.
Result<std::vector<std::pair<std::string, std::string>>> parse_parameters(std::string_view text,
                                                                          std::size_t count_max);

// What a target below /db/ means: the database, and what is asked of it ("" for the database
// itself, "v2/pipeline", "query" …).
struct DatabaseAddress {
  database::DatabaseName name;
  std::string action;
};
// `address.segments` begins with "db". The name is one or two segments; a route word ends it.
Result<DatabaseAddress> parse_database_address(const Address& address);

}  // namespace offprint::server
