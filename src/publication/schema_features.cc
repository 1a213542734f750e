#include "publication/schema_features.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <span>

#include <fmt/format.h>

#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

// Words in a row that are syntax; "(" and signs are operators, "#" is any number.
struct Phrase {
  const char* what;
  int version;
  std::initializer_list<std::string_view> words;
};

const std::array kPhrases = {
    Phrase{"WITHOUT ROWID", 3'008'002, {"WITHOUT", "ROWID"}},
    Phrase{"GENERATED ALWAYS", 3'031'000, {"GENERATED", "ALWAYS", "AS", "("}},
    Phrase{"ON CONFLICT DO", 3'024'000, {"DO", "UPDATE", "SET"}},
    Phrase{"ON CONFLICT DO", 3'024'000, {"DO", "NOTHING"}},
    Phrase{"a window", 3'025'000, {"OVER", "("}},
    Phrase{"FILTER of an aggregate", 3'030'000, {")", "FILTER", "(", "WHERE"}},
    Phrase{"NULLS FIRST", 3'030'000, {"NULLS", "FIRST"}},
    Phrase{"NULLS LAST", 3'030'000, {"NULLS", "LAST"}},
    Phrase{"AS MATERIALIZED", 3'035'000, {"AS", "MATERIALIZED", "("}},
    Phrase{"AS NOT MATERIALIZED", 3'035'000, {"AS", "NOT", "MATERIALIZED", "("}},
    Phrase{"RIGHT JOIN", 3'039'000, {"RIGHT", "JOIN"}},
    Phrase{"RIGHT JOIN", 3'039'000, {"RIGHT", "OUTER", "JOIN"}},
    Phrase{"FULL JOIN", 3'039'000, {"FULL", "JOIN"}},
    Phrase{"FULL JOIN", 3'039'000, {"FULL", "OUTER", "JOIN"}},
    Phrase{"IS DISTINCT FROM", 3'039'000, {"IS", "DISTINCT", "FROM"}},
    Phrase{"IS NOT DISTINCT FROM", 3'039'000, {"IS", "NOT", "DISTINCT", "FROM"}},
};

struct Function {
  std::string_view name;
  int version;
};

constexpr auto kFunctions = std::to_array<Function>({
    {"printf", 3'008'003},
    {"iif", 3'032'000},
    {"if", 3'048'000},
    {"format", 3'038'000},
    {"unixepoch", 3'038'000},
    {"timediff", 3'043'000},
    {"octet_length", 3'043'000},
    {"concat", 3'044'000},
    {"concat_ws", 3'044'000},
    {"string_agg", 3'044'000},
    {"jsonb", 3'045'000},
    {"jsonb_array", 3'045'000},
    {"jsonb_extract", 3'045'000},
    {"jsonb_insert", 3'045'000},
    {"jsonb_object", 3'045'000},
    {"jsonb_patch", 3'045'000},
    {"jsonb_remove", 3'045'000},
    {"jsonb_replace", 3'045'000},
    {"jsonb_set", 3'045'000},
    {"jsonb_group_array", 3'045'000},
    {"jsonb_group_object", 3'045'000},
    {"json_error_position", 3'042'000},
    {"json_pretty", 3'046'000},
    {"unistr", 3'050'000},
    {"unistr_quote", 3'050'000},
    {"unhex", 3'041'000},
    {"json_extract", 3'038'000},
    {"json_group_array", 3'038'000},
    {"json_group_object", 3'038'000},
    {"json_object", 3'038'000},
    {"json_array", 3'038'000},
    {"json_each", 3'038'000},
    {"json_tree", 3'038'000},
    {"json_valid", 3'038'000},
    {"json_type", 3'038'000},
    {"jsonb_each", 3'051'000},
    {"jsonb_tree", 3'051'000},
    {"row_number", 3'025'000},
});

// Words before "(" that call nothing.
constexpr auto kNoFunctions = std::to_array<std::string_view>(
    {"IN",     "OVER",         "AS",    "AND",  "OR",     "NOT",  "FROM",   "JOIN",
     "VALUES", "ON",           "WHERE", "WHEN", "THEN",   "ELSE", "SELECT", "EXISTS",
     "USING",  "SET",          "BY",    "CASE", "UNION",  "ALL",  "EXCEPT", "INTERSECT",
     "FILTER", "MATERIALIZED", "CHECK", "KEY",  "UNIQUE", "IS",   "LIKE",   "BETWEEN"});

class Collector {
 public:
  explicit Collector(std::string_view sql) : tokens_(tokenize(sql)) {}

  std::vector<Feature> collect() {
    collect_head();
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      for (const Phrase& phrase : kPhrases) {
        if (follows(i, phrase.words)) add(phrase.what, phrase.version, tokens_[i]);
      }
      if (tokens_[i].is_operator("->") || tokens_[i].is_operator("->>"))
        add("the operator " + std::string(tokens_[i].text), 3'038'000, tokens_[i]);
      if (tokens_[i].kind == Token::Kind::kNumber &&
          tokens_[i].text.find('_') != std::string_view::npos)
        add("_ in a number", 3'046'000, tokens_[i]);
      if (i + 1 < tokens_.size() && tokens_[i].kind == Token::Kind::kWord &&
          tokens_[i + 1].is_operator("("))
        collect_call(i);
      if (tokens_[i].is_word("UPDATE")) collect_update(i);
    }
    return std::move(list_);
  }

 private:
  bool follows(std::size_t at, std::initializer_list<std::string_view> words) const {
    for (std::string_view word : words) {
      if (at >= tokens_.size()) return false;
      if (!tokens_[at].is_word(word) && !tokens_[at].is_operator(word)) return false;
      ++at;
    }
    return true;
  }

  void add(std::string what, int version, const Token& token) {
    if (std::ranges::find(list_, what, &Feature::what) == list_.end())
      list_.push_back({std::move(what), version, token.offset});
  }

  // What the kind of statement tells: the options of a table, the WHERE and keys of an index, WITH.
  void collect_head() {
    if (tokens_.size() < 3) return;
    const bool is_index = tokens_[1].is_word("INDEX") || tokens_[2].is_word("INDEX");
    const auto open =
        std::ranges::find_if(tokens_, [](const Token& token) { return token.is_operator("("); });
    if (open == tokens_.end()) return;
    const auto begin = static_cast<std::size_t>(open - tokens_.begin());
    const std::size_t behind = behind_parenthesis(tokens_, begin);
    if (tokens_[1].is_word("TABLE")) {
      for (std::size_t i = behind; i < tokens_.size(); ++i) {
        if (tokens_[i].is_word("STRICT")) add("STRICT", 3'037'000, tokens_[i]);
      }
      // AS ( … ) in a column is a generated one, with or without GENERATED ALWAYS.
      for (std::size_t i = begin; i + 1 < behind; ++i) {
        if (follows(i, {"AS", "("}) && depth_is_one(begin, i))
          add("a generated column", 3'031'000, tokens_[i]);
      }
    } else if (is_index) {
      for (std::size_t i = begin + 1; i + 1 < behind; ++i) {
        if (tokens_[i].is_operator("(")) add("an index on an expression", 3'009'000, tokens_[i]);
      }
    }
  }
  bool depth_is_one(std::size_t begin, std::size_t at) const {
    int depth = 0;
    for (std::size_t i = begin; i < at; ++i) {
      if (tokens_[i].is_operator("(")) ++depth;
      if (tokens_[i].is_operator(")")) --depth;
    }
    return depth == 1;
  }

  void collect_call(std::size_t at) {
    const std::string name = folded(tokens_[at].text);
    auto known = std::ranges::find(kFunctions, name, &Function::name);
    const bool is_named = at > 0 && tokens_[at - 1].is_operator(".");
    if (known != kFunctions.end() && !is_named) add(name + "()", known->version, tokens_[at]);
    const bool is_call = std::ranges::none_of(
        kNoFunctions, [&](std::string_view word) { return tokens_[at].is_word(word); });
    if (!is_call) return;
    // ORDER BY among the arguments of an aggregate.
    const std::size_t behind = behind_parenthesis(tokens_, at + 1);
    if (at + 2 < behind && (tokens_[at + 2].is_word("SELECT") || tokens_[at + 2].is_word("WITH")))
      return;
    for (std::size_t i = at + 2; i + 1 < behind; ++i) {
      if (tokens_[i].is_operator("(")) {
        i = behind_parenthesis(tokens_, i) - 1;
      } else if (follows(i, {"ORDER", "BY"})) {
        add("ORDER BY within " + name + "()", 3'044'000, tokens_[i]);
      }
    }
    // RAISE takes an expression as its message since 3.47.
    if (tokens_[at].is_word("RAISE") && behind > at + 4 &&
        !(tokens_[behind - 2].kind == Token::Kind::kString && tokens_[behind - 3].is_operator(",")))
      add("an expression in RAISE", 3'047'000, tokens_[at]);
  }

  // UPDATE … SET … FROM; the FROM of a subquery stands in parentheses.
  void collect_update(std::size_t at) {
    bool is_set = false;
    for (std::size_t i = at + 1; i < tokens_.size(); ++i) {
      if (tokens_[i].is_operator("(")) {
        i = behind_parenthesis(tokens_, i) - 1;
      } else if (tokens_[i].is_operator(";") || tokens_[i].is_word("BEGIN") ||
                 tokens_[i].is_word("ON")) {
        return;
      } else if (tokens_[i].is_word("SET")) {
        is_set = true;
      } else if (is_set && tokens_[i].is_word("FROM")) {
        if (!tokens_[i - 1].is_word("DISTINCT")) add("UPDATE … FROM", 3'033'000, tokens_[i]);
        return;
      }
    }
  }

  Tokens tokens_;
  std::vector<Feature> list_;
};

}  // namespace

std::vector<Feature> features_of(std::string_view sql) { return Collector(sql).collect(); }

std::string version_text(int version) {
  return fmt::format("{}.{}.{}", version / 1'000'000, version / 1'000 % 1'000, version % 1'000);
}

}  // namespace offprint::publication
