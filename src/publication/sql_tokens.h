#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

// SQL taken apart into tokens, as SQLite's own tokenizer does it. Knows no grammar.
namespace offprint::publication {

struct Token {
  enum class Kind { kWord, kQuotedName, kString, kNumber, kBlob, kParameter, kOperator, kComment };
  Kind kind = Kind::kOperator;
  std::string_view text;   // as written, quotes included
  std::size_t offset = 0;  // in the text that was taken apart, bytes
  int depth = 0;           // of parentheses; of a parenthesis itself: outside

  // An unquoted word, whatever its case; `upper` in upper case.
  bool is_word(std::string_view upper) const;
  bool is_operator(std::string_view sign) const { return kind == Kind::kOperator && text == sign; }
  // Of a word or quoted name: the name that it is.
  bool is_name() const { return kind == Kind::kWord || kind == Kind::kQuotedName; }
  std::string name() const;
};
using Tokens = std::vector<Token>;

// The tokens point into `sql`, which must outlive them. What ends too early is a token to the end;
// comments are left out unless asked for.
Tokens tokenize(std::string_view sql, bool with_comments = false);

// The same without comments. kInvalid: a quote or comment never ends, or parentheses do not match.
Result<Tokens> tokenize_whole(std::string_view sql);

// A name between double quotes.
std::string quoted_name(std::string_view name);
// 'text', as SQL.
std::string quoted_text(std::string_view text);

// A name as SQLite compares it: ASCII letters in lower case.
std::string folded(std::string_view name);

// The same for texts that differ in blanks, comments, letter case of words and needless quotes.
std::string normalized(std::span<const Token> tokens);

// The index behind the parenthesis that closes the one at `open`; tokens.size() when none does.
std::size_t behind_parenthesis(std::span<const Token> tokens, std::size_t open);

}  // namespace offprint::publication
