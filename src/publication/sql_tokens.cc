#include "publication/sql_tokens.h"

#include <algorithm>
#include <cctype>

#include <fmt/format.h>

namespace offprint::publication {
namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_' || c == '$' ||
         static_cast<unsigned char>(c) >= 0x80;
}

class Scanner {
 public:
  explicit Scanner(std::string_view sql) : sql_(sql) {}

  Result<std::vector<SqlToken>> run() {
    for (;;) {
      OFFPRINT_TRY(skip());
      if (at_ >= sql_.size()) break;
      OFFPRINT_TRY(take());
    }
    if (depth_ != 0) return fail(Code::kInvalid, "a parenthesis is not closed");
    return std::move(tokens_);
  }

 private:
  Result<> skip() {
    while (at_ < sql_.size()) {
      std::string_view rest = sql_.substr(at_);
      if (is_blank(rest[0])) {
        ++at_;
      } else if (rest.starts_with("--")) {
        at_ += std::min(rest.find('\n'), rest.size());
      } else if (rest.starts_with("/*")) {
        const std::size_t end = rest.find("*/", 2);
        if (end == std::string_view::npos) return fail(Code::kInvalid, "a comment never ends");
        at_ += end + 2;
      } else {
        break;
      }
    }
    return {};
  }

  Result<> take() {
    const char c = sql_[at_];
    const char next = at_ + 1 < sql_.size() ? sql_[at_ + 1] : '\0';
    if ((c == 'x' || c == 'X') && next == '\'')
      return take_quoted(1, '\'', SqlToken::Kind::kString);
    if (c == '\'') return take_quoted(0, c, SqlToken::Kind::kString);
    if (c == '"' || c == '`') return take_quoted(0, c, SqlToken::Kind::kQuoted);
    if (c == '[') return take_quoted(0, ']', SqlToken::Kind::kQuoted);
    if (is_digit(c) || (c == '.' && is_digit(next))) {
      add(SqlToken::Kind::kNumber, size_while([](char d) { return is_word(d) || d == '.'; }));
    } else if (is_word(c)) {
      add(SqlToken::Kind::kWord, size_while(is_word));
    } else if ((c == ':' || c == '@' || c == '?') && (is_word(next) || c == '?')) {
      ++at_;
      const std::size_t size = size_while(is_word) + 1;
      --at_;
      add(SqlToken::Kind::kParameter, size);
    } else {
      if (c == ')' && --depth_ < 0) return fail(Code::kInvalid, "a parenthesis is not opened");
      add(SqlToken::Kind::kSign, 1);
      if (c == '(') ++depth_;
    }
    return {};
  }

  // A doubled quote stands for itself.
  Result<> take_quoted(std::size_t before, char quote, SqlToken::Kind kind) {
    for (std::size_t from = at_ + before + 1;;) {
      const std::size_t end = sql_.find(quote, from);
      if (end == std::string_view::npos) return fail(Code::kInvalid, "a quote never ends");
      if (quote == ']' || end + 1 >= sql_.size() || sql_[end + 1] != quote) {
        add(kind, end + 1 - at_);
        return {};
      }
      from = end + 2;
    }
  }

  template <class Is>
  std::size_t size_while(Is is) const {
    std::size_t end = at_;
    while (end < sql_.size() && is(sql_[end])) ++end;
    return end - at_;
  }
  void add(SqlToken::Kind kind, std::size_t size) {
    tokens_.push_back({kind, sql_.substr(at_, size), at_, depth_});
    at_ += size;
  }

  const std::string_view sql_;
  std::size_t at_ = 0;
  int depth_ = 0;
  std::vector<SqlToken> tokens_;
};

}  // namespace

bool SqlToken::is(std::string_view upper_case) const {
  return kind == Kind::kWord && std::ranges::equal(text, upper_case, [](char a, char b) {
           return std::toupper(static_cast<unsigned char>(a)) == b;
         });
}

std::string SqlToken::name() const {
  if (kind != Kind::kQuoted) return std::string(text);
  std::string name;
  const char quote = text.back();
  for (std::size_t i = 1; i + 1 < text.size(); ++i) {
    name += text[i];
    if (text[i] == quote && quote != ']') ++i;
  }
  return name;
}

Result<std::vector<SqlToken>> tokenize_sql(std::string_view sql) { return Scanner(sql).run(); }

std::string quoted_name(std::string_view name) {
  std::string quoted = "\"";
  for (char c : name) {
    quoted += c;
    if (c == '"') quoted += c;
  }
  return quoted + '"';
}

}  // namespace offprint::publication
