#include "publication/sql_tokens.h"

#include <algorithm>
#include <cctype>

namespace offprint::publication {
namespace {

bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool is_word_part(char c) { return is_word_start(c) || is_digit(c) || c == '$'; }

char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

class Scanner {
 public:
  explicit Scanner(std::string_view sql) : sql_(sql) {}

  bool next(Token& token) {
    while (at_ < sql_.size() && is_blank(sql_[at_])) ++at_;
    if (at_ >= sql_.size()) return false;
    const std::size_t begin = at_;
    token.kind = take();
    token.text = sql_.substr(begin, at_ - begin);
    token.offset = begin;
    if (token.text == ")") --depth_;
    token.depth = depth_;
    if (token.text == "(") ++depth_;
    return true;
  }
  // Of the last token: its end was there.
  bool is_ended() const { return is_ended_; }
  int depth() const { return depth_; }

 private:
  char peek(std::size_t ahead) const {
    return at_ + ahead < sql_.size() ? sql_[at_ + ahead] : '\0';
  }
  void take_until(std::string_view end, std::size_t from) {
    const std::size_t found = sql_.find(end, std::min(from, sql_.size()));
    is_ended_ = found != std::string_view::npos || end == "\n";
    at_ = found == std::string_view::npos ? sql_.size() : found + end.size();
  }
  void take_quoted(char end) {
    for (++at_; at_ < sql_.size(); ++at_) {
      if (sql_[at_] != end) continue;
      if (end == ']' || peek(1) != end) break;
      ++at_;
    }
    is_ended_ = at_ < sql_.size();
    at_ = std::min(at_ + 1, sql_.size());
  }

  Token::Kind take() {
    const char c = sql_[at_];
    if (c == '-' && peek(1) == '-') {
      take_until("\n", at_);
      return Token::Kind::kComment;
    }
    if (c == '/' && peek(1) == '*') {
      take_until("*/", at_ + 2);
      return Token::Kind::kComment;
    }
    if (c == '\'') {
      take_quoted(c);
      return Token::Kind::kString;
    }
    if (c == '"' || c == '`' || c == '[') {
      take_quoted(c == '[' ? ']' : c);
      return Token::Kind::kQuotedName;
    }
    if ((c == 'x' || c == 'X') && peek(1) == '\'') {
      ++at_;
      take_quoted('\'');
      return Token::Kind::kBlob;
    }
    if (is_digit(c) || (c == '.' && is_digit(peek(1)))) {
      take_number();
      return Token::Kind::kNumber;
    }
    if (c == '?' || ((c == ':' || c == '@' || c == '$') && is_word_part(peek(1)))) {
      for (++at_; at_ < sql_.size() && is_word_part(sql_[at_]);) ++at_;
      return Token::Kind::kParameter;
    }
    if (is_word_start(c)) {
      while (at_ < sql_.size() && is_word_part(sql_[at_])) ++at_;
      return Token::Kind::kWord;
    }
    take_operator();
    return Token::Kind::kOperator;
  }
  // 1, 1.5e-3, 0x1F, 1_000; letters that follow are SQLite's to refuse.
  void take_number() {
    while (at_ < sql_.size()) {
      const char c = sql_[at_];
      const bool is_sign = (c == '+' || c == '-') && (sql_[at_ - 1] == 'e' || sql_[at_ - 1] == 'E');
      if (!is_word_part(c) && c != '.' && !is_sign) break;
      ++at_;
    }
  }
  void take_operator() {
    for (std::string_view sign : {"->>", "->", "||", "<=", ">=", "<>", "!=", "==", "<<", ">>"}) {
      if (!sql_.substr(at_).starts_with(sign)) continue;
      at_ += sign.size();
      return;
    }
    ++at_;
  }

  std::string_view sql_;
  std::size_t at_ = 0;
  int depth_ = 0;
  bool is_ended_ = true;
};

}  // namespace

bool Token::is_word(std::string_view wanted) const {
  return kind == Kind::kWord &&
         std::ranges::equal(text, wanted, [](char a, char b) { return upper(a) == b; });
}

std::string Token::name() const {
  if (kind != Kind::kQuotedName || text.size() < 2) return std::string(text);
  const std::string_view inner = text.substr(1, text.size() - 2);
  if (text.front() == '[') return std::string(inner);
  std::string name;
  for (std::size_t i = 0; i < inner.size(); ++i) {
    name += inner[i];
    if (inner[i] == text.front()) ++i;  // a doubled quote
  }
  return name;
}

Tokens tokenize(std::string_view sql, bool with_comments) {
  Tokens tokens;
  Scanner scanner(sql);
  for (Token token; scanner.next(token);) {
    if (token.kind != Token::Kind::kComment || with_comments) tokens.push_back(token);
  }
  return tokens;
}

Result<Tokens> tokenize_whole(std::string_view sql) {
  Tokens tokens;
  Scanner scanner(sql);
  for (Token token; scanner.next(token);) {
    if (!scanner.is_ended()) {
      return fail(Code::kInvalid, token.kind == Token::Kind::kComment ? "a comment never ends"
                                                                      : "a quote never ends");
    }
    if (scanner.depth() < 0) return fail(Code::kInvalid, "a parenthesis is not opened");
    if (token.kind != Token::Kind::kComment) tokens.push_back(token);
  }
  if (scanner.depth() != 0) return fail(Code::kInvalid, "a parenthesis is not closed");
  return tokens;
}

std::string quoted_name(std::string_view name) {
  std::string quoted = "\"";
  for (char c : name) {
    quoted += c;
    if (c == '"') quoted += c;
  }
  return quoted + '"';
}

std::string quoted_text(std::string_view text) {
  std::string quoted = "'";
  for (char c : text) {
    quoted += c;
    if (c == '\'') quoted += c;
  }
  return quoted + '\'';
}

std::string folded(std::string_view name) {
  std::string text(name);
  std::ranges::transform(text, text.begin(), lower);
  return text;
}

std::string normalized(std::span<const Token> tokens) {
  std::string text;
  for (const Token& token : tokens) {
    if (!text.empty()) text += ' ';
    if (token.is_name()) {
      text += folded(token.name());
    } else if (token.is_operator("==")) {
      text += "=";
    } else if (token.is_operator("!=")) {
      text += "<>";
    } else {
      text += token.text;
    }
  }
  return text;
}

std::size_t behind_parenthesis(std::span<const Token> tokens, std::size_t open) {
  int depth = 0;
  for (std::size_t i = open; i < tokens.size(); ++i) {
    if (tokens[i].is_operator("(")) ++depth;
    if (tokens[i].is_operator(")") && --depth == 0) return i + 1;
  }
  return tokens.size();
}

}  // namespace offprint::publication
