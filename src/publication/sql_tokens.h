#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

// SQL as a row of words: what can be told of it without a parser. SQLite itself decides what it
// means.
namespace offprint::publication {

struct SqlToken {
  enum class Kind { kWord, kQuoted, kString, kNumber, kParameter, kSign };
  Kind kind = Kind::kSign;
  std::string_view text;  // as it is written, quotes included
  std::size_t at = 0;     // in the text
  int depth = 0;          // of parentheses; of a parenthesis itself: outside

  // A keyword, in any case.
  bool is(std::string_view upper_case) const;
  bool is_sign(char sign) const {
    return kind == Kind::kSign && text.size() == 1 && text[0] == sign;
  }
  // The name that a word or a quoted one is: 'Order' of "Order", `Order` or [Order].
  std::string name() const;
};

// Without blanks and comments. kInvalid: a quote or comment that never ends, parentheses that do
// not match.
Result<std::vector<SqlToken>> tokenize_sql(std::string_view sql);

// A name between double quotes.
std::string quoted_name(std::string_view name);

}  // namespace offprint::publication
