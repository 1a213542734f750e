#include "publication/schema_table_text.h"

#include <algorithm>
#include <span>

#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

// The tokens of the list in the first parentheses of a statement, without them.
std::span<const Token> first_list(const Tokens& tokens) {
  auto open =
      std::ranges::find_if(tokens, [](const Token& token) { return token.is_operator("("); });
  if (open == tokens.end()) return {};
  const auto begin = static_cast<std::size_t>(open - tokens.begin());
  const std::size_t end = behind_parenthesis(tokens, begin);
  return std::span(tokens).subspan(begin + 1, end - begin - 2);
}

std::vector<std::span<const Token>> split_at_commas(std::span<const Token> tokens) {
  std::vector<std::span<const Token>> parts;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < tokens.size();) {
    if (tokens[i].is_operator("(")) {
      i = behind_parenthesis(tokens, i);
      continue;
    }
    if (tokens[i].is_operator(",")) {
      parts.push_back(tokens.subspan(begin, i - begin));
      begin = i + 1;
    }
    ++i;
  }
  if (begin < tokens.size()) parts.push_back(tokens.subspan(begin));
  return parts;
}

std::string as_written(std::span<const Token> tokens) {
  if (tokens.empty()) return {};
  const char* begin = tokens.front().text.data();
  const char* end = tokens.back().text.data() + tokens.back().text.size();
  return std::string(begin, end);
}

void add_check(Table& table, std::span<const Token> expression) {
  Check check{normalized(expression), as_written(expression), {}};
  for (const Token& token : expression) {
    if (!token.is_name() || table.column(token.name()) == nullptr) continue;
    std::string name = folded(token.name());
    if (std::ranges::find(check.columns, name) == check.columns.end())
      check.columns.push_back(std::move(name));
  }
  table.checks.push_back(std::move(check));
}

// One column with its constraints, or a constraint of the table.
void read_definition(Table& table, std::span<const Token> tokens) {
  Column* column = nullptr;
  if (!tokens.empty() && tokens.front().is_name()) {
    const std::string name = folded(tokens.front().name());
    const bool is_constraint = tokens.size() > 1 && tokens.front().kind == Token::Kind::kWord &&
                               (name == "check" || name == "constraint" || name == "primary" ||
                                name == "unique" || name == "foreign");
    auto found = std::ranges::find_if(
        table.columns, [&](const Column& item) { return folded(item.name) == name; });
    if (!is_constraint && found != table.columns.end()) column = &*found;
  }
  for (std::size_t i = column == nullptr ? 0 : 1; i + 1 < tokens.size();) {
    const Token& token = tokens[i];
    if (!tokens[i + 1].is_operator("(")) {
      ++i;
      continue;
    }
    const std::size_t end = behind_parenthesis(tokens, i + 1);
    const auto inner = tokens.subspan(i + 2, std::max(end, i + 3) - i - 3);
    if (token.is_word("CHECK")) add_check(table, inner);
    if (token.is_word("AS") && column != nullptr && column->generated)
      column->generated_expression = normalized(inner);
    i = end;
  }
}

}  // namespace

void read_table_text(Table& table) {
  const Tokens tokens = tokenize(table.sql);
  const auto definitions = split_at_commas(first_list(tokens));
  for (std::span<const Token> definition : definitions) read_definition(table, definition);
}

IndexText read_index_text(std::string_view sql) {
  IndexText text;
  const Tokens tokens = tokenize(sql);
  auto open =
      std::ranges::find_if(tokens, [](const Token& token) { return token.is_operator("("); });
  if (open == tokens.end()) return text;
  const auto keys = split_at_commas(first_list(tokens));
  for (std::span<const Token> key : keys) {
    while (!key.empty() && (key.back().is_word("ASC") || key.back().is_word("DESC")))
      key = key.first(key.size() - 1);
    text.expressions.push_back(normalized(key));
  }
  const std::size_t behind =
      behind_parenthesis(tokens, static_cast<std::size_t>(open - tokens.begin()));
  if (behind < tokens.size() && tokens[behind].is_word("WHERE"))
    text.where = normalized(std::span(tokens).subspan(behind + 1));
  return text;
}

ViewText read_view_text(std::string_view sql) {
  ViewText text;
  const Tokens tokens = tokenize(sql);
  std::size_t at = 0;
  while (at < tokens.size() && !tokens[at].is_word("AS")) {
    if (tokens[at].is_operator("(")) text.has_column_list = true;
    ++at;
  }
  if (at + 1 >= tokens.size()) return text;
  text.select = as_written(std::span(tokens).subspan(at + 1));
  for (std::size_t i = at + 1; i < tokens.size(); ++i) {
    if (!tokens[i].is_operator("*")) continue;
    const Token& before = tokens[i - 1];
    const bool starts = before.is_word("SELECT") || before.is_word("DISTINCT") ||
                        before.is_word("ALL") || before.is_operator(",") || before.is_operator(".");
    const bool in_exists = i >= 3 && before.is_word("SELECT") && tokens[i - 3].is_word("EXISTS");
    text.has_star = text.has_star || (starts && !in_exists);
  }
  return text;
}

}  // namespace offprint::publication
