#include "publication/select_shape.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <span>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

using Range = std::span<const Token>;

bool is_any_of(const Token& token, std::initializer_list<std::string_view> words) {
  return std::ranges::any_of(words, [&](std::string_view word) { return token.is_word(word); });
}

std::unexpected<Error> unknown(std::string_view what) {
  return fail(Code::kInvalid, std::string(what));
}

bool has_select(Range range) {
  return std::ranges::any_of(range, [](const Token& token) { return token.is_word("SELECT"); });
}

bool has_parameter(Range range) {
  return std::ranges::any_of(
      range, [](const Token& token) { return token.kind == Token::Kind::kParameter; });
}

class ShapeParser {
 public:
  ShapeParser(std::string_view sql, const HasColumn& has_column)
      : sql_(sql), has_column_(has_column) {}

  Result<SelectShape> run() {
    OFFPRINT_TRY_ASSIGN(tokens_, tokenize_whole(sql_));
    for (const Token& token : tokens_) {
      if (is_any_of(token, {"UNION", "INTERSECT", "EXCEPT", "WITH", "OVER", "WINDOW", "NATURAL",
                            "RIGHT", "FULL", "INDEXED"}))
        return unknown(fmt::format("{} in it", token.text));
    }
    OFFPRINT_TRY(parse(tokens_, -1, Kind::kOutermost));
    return std::move(shape_);
  }

 private:
  enum class Kind { kOutermost, kIn, kExists, kOther };
  struct Clauses {
    Range results, from, where, groups, rest;  // rest: HAVING, ORDER BY, LIMIT
    bool is_grouped = false, is_limited = false;
  };

  struct Edit {
    std::size_t begin, end;
    std::string text;
  };

  std::string text(Range range) const {
    if (range.empty()) return "";
    return std::string(sql_.substr(range.front().offset, end_of(range) - range.front().offset));
  }
  // The same with the tables of its columns.
  std::string qualified(Range range, std::size_t scope) const;
  std::string table_of(const std::string& column, std::size_t scope) const;
  std::string qualified_from(Range from, std::size_t scope) const;
  // The parts between these separators, at the depth of the range's first token.
  template <class Is>
  static std::vector<Range> split(Range range, Is is_separator) {
    std::vector<Range> parts;
    std::size_t begin = 0;
    for (std::size_t i = 0; i <= range.size(); ++i) {
      const bool is_end = i == range.size();
      if (!is_end && (range[i].depth != range[0].depth || !is_separator(range[i]))) continue;
      if (i > begin) parts.push_back(range.subspan(begin, i - begin));
      begin = i + 1;
    }
    return parts;
  }

  // The text from one place to another, with what was put in.
  std::string edited(std::size_t begin, std::size_t end) const;
  void edit(std::size_t begin, std::size_t end, std::string text) {
    auto behind = std::ranges::upper_bound(edits_, begin, {}, &Edit::begin);
    edits_.insert(behind, {begin, end, std::move(text)});
  }
  static std::size_t end_of(Range range) { return range.back().offset + range.back().text.size(); }
  void make_searched(const Clauses& parts, Range operand, const std::string& link);

  Result<Clauses> clauses(Range range) const;
  Result<> parse(Range range, int parent, Kind kind, Range operand = {});
  Result<> parse_from(Range from, SelectScope& scope, bool is_outermost);
  bool is_taken(const std::string& alias, const SelectScope& scope) const;
  Result<> parse_where(Range where, std::size_t scope);
  Result<> parse_condition(Range condition, std::size_t scope);
  Result<> parse_subqueries(Range range, std::size_t scope);
  Result<> parse_results(const Clauses& parts);
  std::optional<SelectScope::Equality> equality(Range condition, std::size_t scope) const;
  static std::vector<Range> conjuncts(Range where);

  const std::string_view sql_;
  const HasColumn& has_column_;
  Tokens tokens_;
  SelectShape shape_;
  std::vector<Edit> edits_;  // by where they begin
};

std::string ShapeParser::edited(std::size_t begin, std::size_t end) const {
  std::string result;
  std::size_t at = begin;
  for (const Edit& each : edits_) {
    if (each.begin < begin || each.begin >= end) continue;
    result += sql_.substr(at, each.begin - at);
    result += each.text;
    at = each.end;
  }
  return result + std::string(sql_.substr(at, end - at));
}

// `x IN (SELECT y FROM t WHERE c)` to `EXISTS (SELECT 1 FROM t WHERE x = (y) AND (c))`: SQLite
// makes a list of all of the former's values each time. As a condition both say the same.
void ShapeParser::make_searched(const Clauses& parts, Range operand, const std::string& link) {
  edit(operand.front().offset, parts.from.front().offset, "EXISTS (SELECT 1 FROM ");
  if (parts.where.empty()) {
    edit(end_of(parts.from), end_of(parts.from), " WHERE " + link);
  } else {
    edit(parts.where.front().offset, parts.where.front().offset, link + " AND (");
    edit(end_of(parts.where), end_of(parts.where), ")");
  }
}

// The name before a column that stands without one: of the innermost scope that has it.
std::string ShapeParser::table_of(const std::string& column, std::size_t scope) const {
  const SelectScope& here = shape_.scopes[scope];
  for (const SelectScope::Source& source : here.sources) {
    if (has_column_(source.table, column)) return source.alias;
  }
  return here.parent < 0 ? "" : table_of(column, static_cast<std::size_t>(here.parent));
}

std::string ShapeParser::qualified(Range range, std::size_t scope) const {
  std::string result;
  for (std::size_t i = 0; i < range.size(); ++i) {
    const Token& token = range[i];
    if (i > 0) {
      const std::size_t end = end_of(range.first(i));
      result += sql_.substr(end, token.offset - end);
    }
    const bool is_alone =
        token.is_name() &&
        !(i > 0 && (range[i - 1].is_operator(".") || is_any_of(range[i - 1], {"AS", "COLLATE"}))) &&
        !(i + 1 < range.size() && (range[i + 1].is_operator(".") || range[i + 1].is_operator("(")));
    const std::string table = is_alone ? table_of(token.name(), scope) : "";
    if (!table.empty()) result += table + ".";
    result += token.text;
  }
  return result;
}

// FROM with the tables of the columns that stand in its ON conditions.
std::string ShapeParser::qualified_from(Range from, std::size_t scope) const {
  std::string result;
  std::size_t begin = 0;
  auto take = [&](std::size_t end, bool is_condition) {
    const Range part = from.subspan(begin, end - begin);
    if (!result.empty() && !part.empty()) result += ' ';
    result += is_condition ? qualified(part, scope) : text(part);
    begin = end;
  };
  bool is_condition = false;
  for (std::size_t i = 0; i < from.size(); ++i) {
    const Token& token = from[i];
    if (token.depth != from[0].depth) continue;
    const bool ends =
        token.is_operator(",") || is_any_of(token, {"JOIN", "LEFT", "INNER", "CROSS"});
    if (token.is_word("ON")) {
      take(i + 1, false);
      is_condition = true;
    } else if (is_condition && ends) {
      take(i, true);
      is_condition = false;
    }
  }
  take(from.size(), is_condition);
  return result;
}

Result<ShapeParser::Clauses> ShapeParser::clauses(Range range) const {
  if (range.empty() || !range[0].is_word("SELECT")) return unknown("something other than SELECT");
  Clauses parts;
  Range* open = &parts.results;
  std::size_t begin = 1;
  auto close = [&](std::size_t end, Range* next, std::size_t words) {
    *open = range.subspan(begin, end - begin);
    open = next;
    begin = end + words;
  };
  if (range.size() > 1 && is_any_of(range[1], {"DISTINCT", "ALL"})) ++begin;
  for (std::size_t i = 1; i < range.size(); ++i) {
    const Token& token = range[i];
    if (token.depth != range[0].depth) continue;
    if (token.is_word("FROM") && open == &parts.results && !range[i - 1].is_word("DISTINCT")) {
      close(i, &parts.from, 1);
    } else if (token.is_word("WHERE") && open == &parts.from) {
      close(i, &parts.where, 1);
    } else if (token.is_word("GROUP")) {
      close(i, &parts.groups, 2);
      parts.is_grouped = true;
    } else if (is_any_of(token, {"HAVING", "ORDER", "LIMIT"}) && open != &parts.rest) {
      close(i, &parts.rest, 0);
    }
    parts.is_limited = parts.is_limited || token.is_word("LIMIT");
  }
  begin = std::min(begin, range.size());
  *open = range.subspan(begin);
  if (parts.from.empty()) return unknown("a SELECT without FROM");
  return parts;
}

Result<> ShapeParser::parse(Range range, int parent, Kind kind, Range operand) {
  OFFPRINT_TRY_ASSIGN(Clauses parts, clauses(range));
  const std::size_t index = shape_.scopes.size();
  SelectScope scope;
  scope.parent = parent;
  // EXISTS of an aggregate is true even where there is nothing.
  const bool must_be = kind == Kind::kIn || (kind == Kind::kExists && parts.results.size() == 1);
  scope.is_required =
      parent < 0 || (must_be && shape_.scopes[static_cast<std::size_t>(parent)].is_required);
  OFFPRINT_TRY(parse_from(parts.from, scope, parent < 0));
  if (kind == Kind::kIn) {
    // Which values are left of those that LIMIT, or a group, lets through may depend on others.
    if (parts.is_limited || parts.is_grouped || !parts.rest.empty())
      return unknown("GROUP BY, ORDER BY or LIMIT in the SELECT of an IN");
    if (split(parts.results, [](const Token& token) { return token.is_operator(","); }).size() != 1)
      return unknown("an IN of several columns");
    if (has_parameter(parts.results)) return unknown("a parameter among what an IN selects");
  }
  if (parent < 0 && parts.is_limited) return unknown("LIMIT in it");
  if (parent < 0 && !parts.is_grouped && !parts.rest.empty() && parts.rest[0].is_word("HAVING"))
    return unknown("HAVING without GROUP BY");
  shape_.scopes.push_back(std::move(scope));
  shape_.scopes[index].from = qualified_from(parts.from, index);
  if (kind == Kind::kIn) {
    shape_.scopes[index].link =
        fmt::format("{} = ({})", qualified(operand, static_cast<std::size_t>(parent)),
                    qualified(parts.results, index));
    make_searched(parts, operand, shape_.scopes[index].link);
  }
  OFFPRINT_TRY(parse_where(parts.where, index));
  OFFPRINT_TRY(parse_subqueries(parts.results, index));
  OFFPRINT_TRY(parse_subqueries(parts.groups, index));
  OFFPRINT_TRY(parse_subqueries(parts.rest, index));
  return parent < 0 ? parse_results(parts) : Result<>();
}

Result<> ShapeParser::parse_from(Range from, SelectScope& scope, bool is_outermost) {
  if (has_select(from)) return unknown("a SELECT in FROM");
  if (has_parameter(from)) return unknown("a parameter in FROM");
  bool is_name_next = true;
  for (std::size_t i = 0; i < from.size(); ++i) {
    const Token& token = from[i];
    if (token.depth != from[0].depth) continue;
    if (token.is_operator(",") || token.is_word("JOIN")) {
      is_name_next = true;
    } else if (token.is_word("LEFT")) {
      if (!is_outermost) return unknown("LEFT JOIN in an inner SELECT");
      scope.has_outer_join = true;
    } else if (is_name_next) {
      if (i + 2 < from.size() && token.name() == "main" && from[i + 1].is_operator(".")) i += 2;
      if (!from[i].is_name()) return unknown("something other than tables in FROM");
      SelectScope::Source source{from[i].name(), quoted_name(from[i].name())};
      if (i + 1 < from.size() && from[i + 1].is_operator("(")) return unknown("a function in FROM");
      if (i + 1 < from.size() && from[i + 1].is_word("AS")) ++i;
      const bool has_alias = i + 1 < from.size() && from[i + 1].is_name() &&
                             !is_any_of(from[i + 1], {"LEFT", "INNER", "CROSS", "OUTER", "JOIN",
                                                      "ON", "USING", "NOT"});
      if (has_alias) source.alias = quoted_name(from[++i].name());
      if (is_taken(source.alias, scope))
        return unknown(
            fmt::format("two tables named {}: give them other names by AS", source.alias));
      scope.sources.push_back(std::move(source));
      is_name_next = false;
    }
  }
  return {};
}

bool ShapeParser::is_taken(const std::string& alias, const SelectScope& scope) const {
  auto has = [&](const SelectScope& each) {
    return std::ranges::any_of(each.sources, [&](const SelectScope::Source& source) {
      return folded(source.alias) == folded(alias);
    });
  };
  const SelectScope* each = &scope;
  while (!has(*each)) {
    if (each->parent < 0) return false;
    each = &shape_.scopes[static_cast<std::size_t>(each->parent)];
  }
  return true;
}

// `a AND b` apart; BETWEEN has an AND of its own, and in CASE it may stand anywhere.
std::vector<Range> ShapeParser::conjuncts(Range where) {
  while (where.size() > 2 && where[0].is_operator("(") && !where[1].is_word("SELECT") &&
         behind_parenthesis(where, 0) == where.size())
    where = where.subspan(1, where.size() - 2);
  const auto is_at_top = [&](const Token& token) { return token.depth == where[0].depth; };
  for (const Token& token : where) {
    if (is_at_top(token) && is_any_of(token, {"OR", "CASE"})) return {where};
  }
  bool is_between = false;
  return split(where, [&](const Token& token) {
    if (token.is_word("BETWEEN")) is_between = true;
    if (!token.is_word("AND")) return false;
    return !std::exchange(is_between, false);
  });
}

Result<> ShapeParser::parse_where(Range where, std::size_t scope) {
  if (!where.empty()) {
    for (Range condition : conjuncts(where)) OFFPRINT_TRY(parse_condition(condition, scope));
  }
  if (shape_.scopes[scope].has_outer_join) shape_.scopes[scope].conditions.clear();
  return {};
}

std::optional<SelectScope::Equality> ShapeParser::equality(Range condition,
                                                           std::size_t scope) const {
  const auto sign = std::ranges::find_if(condition, [](const Token& token) {
    return token.is_operator("=") || token.is_operator("==");
  });
  if (sign == condition.end()) return std::nullopt;
  Range left = condition.first(static_cast<std::size_t>(sign - condition.begin()));
  Range right = condition.subspan(left.size() + 1);
  if (left.size() == 1 && left[0].kind == Token::Kind::kParameter) std::swap(left, right);
  if (right.size() != 1 || right[0].kind != Token::Kind::kParameter) return std::nullopt;
  const bool is_column =
      (left.size() == 1 && left[0].is_name()) ||
      (left.size() == 3 && left[0].is_name() && left[1].is_operator(".") && left[2].is_name());
  if (!is_column) return std::nullopt;
  return SelectScope::Equality{qualified(left, scope), std::string(right[0].text.substr(1))};
}

Result<> ShapeParser::parse_condition(Range condition, std::size_t scope) {
  if (!has_select(condition)) {
    if (auto equal = equality(condition, scope))
      shape_.scopes[scope].equalities.push_back(*std::move(equal));
    if (!has_parameter(condition))
      shape_.scopes[scope].conditions.push_back(qualified(condition, scope));
    return {};
  }
  const int parent = static_cast<int>(scope);
  const Range inner = condition.back().is_operator(")") ? condition : Range();
  // EXISTS (SELECT …)
  if (!inner.empty() && inner[0].is_word("EXISTS") &&
      behind_parenthesis(inner, 1) == inner.size() && inner.size() > 3)
    return parse(inner.subspan(2, inner.size() - 3), parent, Kind::kExists);
  // column IN (SELECT …)
  for (std::size_t size : {1U, 3U}) {
    if (inner.size() < size + 4 || !inner[size].is_word("IN") || !inner[size + 1].is_operator("("))
      continue;
    const bool is_column =
        inner[0].is_name() && (size == 1 || (inner[1].is_operator(".") && inner[2].is_name()));
    if (is_column && behind_parenthesis(inner, size + 1) == inner.size())
      return parse(inner.subspan(size + 2, inner.size() - size - 3), parent, Kind::kIn,
                   inner.first(size));
  }
  return parse_subqueries(condition, scope);
}

// What depends on the rows that its conditions let through, wherever it stands.
Result<> ShapeParser::parse_subqueries(Range range, std::size_t scope) {
  for (std::size_t i = 0; i + 1 < range.size(); ++i) {
    if (!range[i].is_operator("(") || !range[i + 1].is_word("SELECT")) continue;
    // Whether NULL is among the values changes what NOT IN says of all others.
    if (i > 0 && range[i - 1].is_word("IN"))
      return unknown("an IN (SELECT …) that is not a condition of its own: write EXISTS");
    const std::size_t end = behind_parenthesis(range, i);
    OFFPRINT_TRY(parse(range.subspan(i + 1, end - i - 2), static_cast<int>(scope), Kind::kOther));
    i = end - 1;
  }
  return {};
}

Result<> ShapeParser::parse_results(const Clauses& parts) {
  const auto is_comma = [](const Token& token) { return token.is_operator(","); };
  std::vector<std::pair<std::string, Range>> names;
  for (Range result : split(parts.results, is_comma)) {
    if (result.back().is_operator("*")) return unknown("*: name the columns");
    std::string name;
    if (result.size() > 2 && result[result.size() - 2].is_word("AS")) {
      name = folded(result.back().name());
      result = result.first(result.size() - 2);
    }
    shape_.results.push_back(qualified(result, 0));
    names.emplace_back(std::move(name), result);
  }
  if (!parts.groups.empty()) {
    for (Range group : split(parts.groups, is_comma)) {
      std::size_t number = 0;
      const std::string written = text(group);
      std::from_chars(written.data(), written.data() + written.size(), number);
      auto result = std::ranges::find_if(names, [&](const auto& each) {
        return normalized(each.second) == normalized(group) ||
               (group.size() == 1 && group[0].is_name() && !each.first.empty() &&
                each.first == folded(group[0].name()));
      });
      if (group.size() == 1 && number > 0 && number <= names.size())
        shape_.groups.push_back(shape_.results[number - 1]);
      else if (result != names.end())
        shape_.groups.push_back(qualified(result->second, 0));
      else
        shape_.groups.push_back(qualified(group, 0));
    }
  }
  shape_.is_grouped = parts.is_grouped;
  std::size_t end = end_of(parts.from);
  shape_.head = edited(0, end);
  if (!parts.where.empty()) {
    end = end_of(parts.where);
    shape_.where = edited(parts.where.front().offset, end);
  }
  shape_.tail = edited(end, sql_.size());
  return {};
}

}  // namespace

std::string SelectShape::restricted_to(std::string_view condition) const {
  return fmt::format("{} WHERE {}{}{}", head, where.empty() ? "" : "(" + where + ") AND ",
                     condition, tail);
}

std::string SelectShape::from_of(std::size_t scope) const {
  const int parent = scopes[scope].parent;
  if (parent < 0) return scopes[scope].from;
  return from_of(static_cast<std::size_t>(parent)) + ", " + scopes[scope].from;
}

std::vector<std::string> SelectShape::conditions_of(std::size_t scope) const {
  std::vector<std::string> conditions;
  for (int each = static_cast<int>(scope); each >= 0;) {
    const SelectScope& one = scopes[static_cast<std::size_t>(each)];
    for (const std::string& condition : one.conditions) conditions.push_back("(" + condition + ")");
    if (!one.link.empty()) conditions.push_back("(" + one.link + ")");
    each = one.parent;
  }
  return conditions;
}

Result<SelectShape> parse_select(std::string_view sql, const HasColumn& has_column) {
  return ShapeParser(sql, has_column).run();
}

}  // namespace offprint::publication
