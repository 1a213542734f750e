#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace offprint::database {

// A database's name: one or two segments [a-z0-9][a-z0-9_-]{0,62}, none of them a route word
// ("query", "stream", …), such as "orders" or "shop/orders". Always valid once made.
class DatabaseName {
 public:
  // kInvalid with what is wrong.
  static Result<DatabaseName> parse(std::string_view text);
  // Also names of instances, which no address has: "@" and a number, then a segment that may have
  // any of these letters first. For what was stored.
  static Result<DatabaseName> stored(std::string_view text);
  // Of an instance of a publication: a database that belongs to the one with that number. `rest`:
  // 1 to 150 letters of segments.
  static DatabaseName instance(std::uint64_t source_id, std::string_view rest);
  // What names of all instances of that database begin with.
  static std::string instance_prefix(std::uint64_t source_id);
  // Of the list of databases itself, for those who keep its history: no request finds it.
  static DatabaseName catalog() { return DatabaseName("_catalog"); }
  const std::string& text() const { return text_; }
  bool is_instance() const { return text_.starts_with('@'); }
  auto operator<=>(const DatabaseName&) const = default;

 private:
  explicit DatabaseName(std::string text) : text_(std::move(text)) {}
  std::string text_;
};

// A word that stands for an action in an address below /db/NAME/ and therefore can't be a segment
// of a name.
bool is_route_word(std::string_view segment);

}  // namespace offprint::database
