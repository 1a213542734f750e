#pragma once

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
  // Of the list of databases itself, for those who keep its history: no request finds it.
  static DatabaseName catalog() { return DatabaseName("_catalog"); }
  const std::string& text() const { return text_; }
  auto operator<=>(const DatabaseName&) const = default;

 private:
  explicit DatabaseName(std::string text) : text_(std::move(text)) {}
  std::string text_;
};

// A word that stands for an action in an address below /db/NAME/ and therefore can't be a segment
// of a name.
bool is_route_word(std::string_view segment);

}  // namespace offprint::database
