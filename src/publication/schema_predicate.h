#pragma once

#include <string>
#include <vector>

// Which of two conditions lets more rows through, as far as their text tells.
namespace offprint::publication {

struct PredicateChange {
  bool looser = false, tighter = false;  // the new condition; both: not comparable
  std::string subject;  // normalized: what is compared with values, such as "state"; may be empty
  std::string text;     // "'void' is new", "length ( c ) <= 10 became length ( c ) <= 20"
};

// Both are conjunctions: rows must meet all of the conditions. Told are lists of values (IN, =) and
// bounds (<, <=, >, >=) of the same subject; another condition is one that came or went.
std::vector<PredicateChange> compare_predicates(const std::vector<std::string>& before,
                                                const std::vector<std::string>& after);

}  // namespace offprint::publication
