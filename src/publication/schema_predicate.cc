#include "publication/schema_predicate.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <span>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

using TokenSpan = std::span<const Token>;

struct Condition {
  std::string text;  // normalized
  std::string subject;
  std::set<std::string> values;  // of a list
  std::string sign;              // of a bound
  double bound = 0;
};

TokenSpan without_parentheses(TokenSpan tokens) {
  while (tokens.size() > 2 && tokens.front().is_operator("(") &&
         behind_parenthesis(tokens, 0) == tokens.size()) {
    tokens = tokens.subspan(1, tokens.size() - 2);
  }
  return tokens;
}

bool is_literal(const Token& token) {
  return token.kind == Token::Kind::kString || token.kind == Token::Kind::kNumber ||
         token.kind == Token::Kind::kBlob;
}

std::optional<double> number(TokenSpan tokens) {
  const bool negative = tokens.size() == 2 && tokens[0].is_operator("-");
  if (tokens.size() != (negative ? 2 : 1) || tokens.back().kind != Token::Kind::kNumber)
    return std::nullopt;
  const std::string_view text = tokens.back().text;
  double value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return negative ? -value : value;
}

// X IN (literal, …)
bool take_list(TokenSpan tokens, Condition& condition) {
  for (std::size_t i = 1; i + 1 < tokens.size(); ++i) {
    if (!tokens[i].is_word("IN") || !tokens[i + 1].is_operator("(")) continue;
    if (tokens[i - 1].is_word("NOT") || behind_parenthesis(tokens, i + 1) != tokens.size())
      return false;
    for (std::size_t k = i + 2; k + 1 < tokens.size(); ++k) {
      if (!is_literal(tokens[k]) && !tokens[k].is_operator(",")) return false;
      if (is_literal(tokens[k])) condition.values.emplace(tokens[k].text);
    }
    condition.subject = normalized(tokens.first(i));
    return true;
  }
  return false;
}

// X = literal, X < number
bool take_comparison(TokenSpan tokens, Condition& condition) {
  for (std::size_t i = 1; i + 1 < tokens.size(); ++i) {
    if (tokens[i].is_operator("(")) {
      i = behind_parenthesis(tokens, i) - 1;
      continue;
    }
    const TokenSpan right = tokens.subspan(i + 1);
    if (tokens[i].is_operator("=") || tokens[i].is_operator("==")) {
      if (right.size() != 1 || !is_literal(right[0])) return false;
      condition.values.emplace(right[0].text);
      condition.subject = normalized(tokens.first(i));
      return true;
    }
    for (std::string_view sign : {"<", "<=", ">", ">="}) {
      if (!tokens[i].is_operator(sign)) continue;
      const std::optional<double> bound = number(right);
      if (!bound) return false;
      condition.subject = normalized(tokens.first(i));
      condition.sign = sign;
      condition.bound = *bound;
      return true;
    }
  }
  return false;
}

Condition read_condition(TokenSpan tokens) {
  Condition condition;
  condition.text = normalized(tokens);
  // Words that bind more than one comparison together.
  const bool is_compound = std::ranges::any_of(tokens, [](const Token& token) {
    return token.is_word("OR") || token.is_word("AND") || token.is_word("CASE") ||
           token.is_word("SELECT") || token.is_word("COLLATE");
  });
  if (!is_compound && !take_list(tokens, condition)) take_comparison(tokens, condition);
  return condition;
}

void add_conditions(TokenSpan tokens, std::vector<Condition>& to) {
  tokens = without_parentheses(tokens);
  std::vector<TokenSpan> parts;
  std::size_t begin = 0;
  bool in_between = false, indivisible = false;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i].is_operator("(")) {
      i = behind_parenthesis(tokens, i) - 1;
      continue;
    }
    indivisible = indivisible || tokens[i].is_word("OR") || tokens[i].is_word("CASE");
    if (tokens[i].is_word("BETWEEN")) in_between = true;
    if (!tokens[i].is_word("AND")) continue;
    if (!in_between) {
      parts.push_back(tokens.subspan(begin, i - begin));
      begin = i + 1;
    }
    in_between = false;
  }
  if (begin == 0 || indivisible) {
    if (!tokens.empty()) to.push_back(read_condition(tokens));
    return;
  }
  parts.push_back(tokens.subspan(begin));
  for (TokenSpan part : parts) add_conditions(part, to);
}

std::vector<Condition> conditions_of(const std::vector<std::string>& predicates) {
  std::vector<Condition> list;
  for (const std::string& predicate : predicates) {
    const Tokens tokens = tokenize(predicate);
    add_conditions(tokens, list);
  }
  return list;
}

void keep_others(std::vector<Condition>& list, const std::vector<Condition>& others) {
  std::erase_if(list, [&](const Condition& item) {
    return std::ranges::find(others, item.text, &Condition::text) != others.end();
  });
}

std::optional<PredicateChange> compare(const Condition& before, const Condition& after) {
  if (before.subject.empty() || before.subject != after.subject) return std::nullopt;
  PredicateChange change;
  change.subject = after.subject;
  if (!before.values.empty() && !after.values.empty()) {
    std::vector<std::string> added, gone;
    std::ranges::set_difference(after.values, before.values, std::back_inserter(added));
    std::ranges::set_difference(before.values, after.values, std::back_inserter(gone));
    change.looser = !added.empty();
    change.tighter = !gone.empty();
    if (change.looser) change.text = fmt::format("new: {}", fmt::join(added, ", "));
    if (change.tighter) {
      if (change.looser) change.text += "; ";
      change.text += fmt::format("gone: {}", fmt::join(gone, ", "));
    }
    return change;
  }
  if (before.sign.empty() || after.sign.empty() || before.sign.front() != after.sign.front())
    return std::nullopt;
  const bool is_upper = after.sign.front() == '<';
  const bool same_bound = !(before.bound < after.bound) && !(after.bound < before.bound);
  const bool grew = same_bound ? after.sign.size() > before.sign.size()
                               : (before.bound < after.bound) == is_upper;
  change.looser = grew;
  change.tighter = !grew;
  change.text = fmt::format("{} became {}", before.text, after.text);
  return change;
}

}  // namespace

std::vector<PredicateChange> compare_predicates(const std::vector<std::string>& before,
                                                const std::vector<std::string>& after) {
  std::vector<Condition> old_list = conditions_of(before), new_list = conditions_of(after);
  const std::vector<Condition> all_old = old_list;
  keep_others(old_list, new_list);
  keep_others(new_list, all_old);
  std::vector<PredicateChange> changes;
  for (const Condition& gone : old_list) {
    auto matching = std::ranges::find_if(
        new_list, [&](const Condition& item) { return compare(gone, item).has_value(); });
    if (matching == new_list.end()) {
      changes.push_back({true, false, gone.subject, gone.text + " is gone"});
      continue;
    }
    PredicateChange change = *compare(gone, *matching);
    if (change.looser || change.tighter) changes.push_back(std::move(change));
    new_list.erase(matching);
  }
  for (const Condition& added : new_list)
    changes.push_back({false, true, added.subject, added.text + " is new"});
  return changes;
}

}  // namespace offprint::publication
