#include "publication/full_join.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/row_links.h"
#include "publication/source_table.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

std::unexpected<Error> unknown(const std::string& why) {
  return fail(Code::kInvalid,
              fmt::format("FULL JOIN other than FROM a FULL JOIN b USING(key) …: {}", why));
}

class Parser {
 public:
  explicit Parser(std::string_view sql, const Tokens& tokens) : sql_(sql), tokens_(tokens) {}

  Result<FullJoin> run() {
    if (!take("SELECT")) return unknown("something before SELECT");
    OFFPRINT_TRY(take_results());
    OFFPRINT_TRY(take_table());
    while (take("FULL")) {
      (void)take("OUTER");
      if (!take("JOIN")) return unknown("no JOIN behind FULL");
      OFFPRINT_TRY(take_table());
      OFFPRINT_TRY(take_using());
    }
    if (take("WHERE")) {
      const std::size_t begin = at_;
      at_ = tokens_.size();
      join_.where = text(begin, at_);
    }
    if (at_ < tokens_.size()) return unknown(std::string(tokens_[at_].text));
    return std::move(join_);
  }

 private:
  bool is(std::string_view word) const {
    return at_ < tokens_.size() && tokens_[at_].is_word(word);
  }
  bool is_sign(std::string_view sign) const {
    return at_ < tokens_.size() && tokens_[at_].is_operator(sign);
  }
  bool take(std::string_view word) {
    if (!is(word)) return false;
    ++at_;
    return true;
  }
  std::string text(std::size_t begin, std::size_t end) const {
    if (begin == end) return "";
    const Token& last = tokens_[end - 1];
    const std::size_t from = tokens_[begin].offset;
    return std::string(sql_.substr(from, last.offset + last.text.size() - from));
  }

  Result<> take_results() {
    const std::size_t all = at_;
    for (std::size_t begin = at_; at_ < tokens_.size(); ++at_) {
      const bool is_end = tokens_[at_].depth == 0 && is("FROM");
      if (is_end || (tokens_[at_].depth == 0 && is_sign(","))) {
        std::size_t end = at_;
        if (end > begin + 2 && tokens_[end - 2].is_word("AS")) end -= 2;
        join_.results.push_back(text(begin, end));
        begin = at_ + 1;
      }
      if (is_end) break;
    }
    join_.result_text = text(all, at_);
    if (!take("FROM")) return unknown("no FROM");
    return {};
  }
  Result<> take_table() {
    if (is("main") || (at_ < tokens_.size() && folded(tokens_[at_].name()) == "main")) {
      if (at_ + 1 < tokens_.size() && tokens_[at_ + 1].is_operator(".")) at_ += 2;
    }
    if (at_ >= tokens_.size() || !tokens_[at_].is_name()) return unknown("no table");
    FullJoin::Table table{tokens_[at_].name(), ""};
    ++at_;
    const bool is_renamed = take("AS");
    const bool has_alias = at_ < tokens_.size() && tokens_[at_].is_name() && !is("FULL") &&
                           !is("USING") && !is("WHERE");
    table.alias = quoted_name(has_alias ? tokens_[at_].name() : table.name);
    if (is_renamed && !has_alias) return unknown("no name behind AS");
    if (has_alias) ++at_;
    join_.tables.push_back(std::move(table));
    return {};
  }
  Result<> take_using() {
    const bool is_there = take("USING") && at_ + 2 < tokens_.size() && is_sign("(") &&
                          tokens_[at_ + 1].is_name() && tokens_[at_ + 2].is_operator(")");
    if (!is_there) return unknown("no USING of one column");
    const std::string key = tokens_[at_ + 1].name();
    if (!join_.key.empty() && folded(key) != folded(join_.key))
      return unknown("USING of several columns");
    join_.key = key;
    at_ += 3;
    return {};
  }

  const std::string_view sql_;
  const Tokens& tokens_;
  std::size_t at_ = 0;
  FullJoin join_;
};

// Values that are equal are the same: they are converted when they are stored.
bool converts(const SourceColumn& column) {
  const std::string type = folded(column.type);
  return !type.empty() && type != "any" && type.find("blob") == std::string::npos;
}

}  // namespace

Result<std::optional<FullJoin>> parse_full_join(std::string_view sql) {
  OFFPRINT_TRY_ASSIGN(Tokens tokens, tokenize_whole(sql));
  if (std::ranges::none_of(tokens, [](const Token& each) { return each.is_word("FULL"); }))
    return std::optional<FullJoin>();
  for (std::size_t i = 1; i < tokens.size(); ++i) {
    for (const char* word : {"SELECT", "DISTINCT", "GROUP", "HAVING", "ORDER", "LIMIT", "UNION",
                             "EXCEPT", "INTERSECT", "OVER", "LEFT", "RIGHT", "NATURAL"}) {
      if (tokens[i].is_word(word)) return unknown(word);
    }
  }
  OFFPRINT_TRY_ASSIGN(FullJoin join, Parser(sql, tokens).run());
  return std::optional(std::move(join));
}

Result<> plan_full_join(sqlite::Connection& schema, const FullJoin& join, ItemPlan& plan) {
  const std::string key = quoted_name(join.key);
  std::string from = fmt::format("(SELECT @1 AS {})", key), first_type;
  std::vector<std::string> present;
  for (const FullJoin::Table& each : join.tables) {
    OFFPRINT_TRY_ASSIGN(SourceTable table, read_source_table(schema, each.name));
    const auto own = table.key();
    const bool is_key = own.size() == 1 && folded(own[0]->name) == folded(join.key);
    const bool is_known = is_key && (table.is_rowid_alias ||
                                     ((own[0]->not_null || !table.has_rowid) && converts(*own[0]) &&
                                      folded(own[0]->collation) == "binary"));
    if (!is_known) {
      return unknown(fmt::format(
          "{} is not the primary key of {}, NOT NULL and of a type, without a collation", join.key,
          each.name));
    }
    const std::string type = table.is_rowid_alias ? "a rowid" : folded(own[0]->type);
    if (first_type.empty()) first_type = type;
    if (type != first_type) return unknown(join.key + " has several types");
    const auto identity = table.identity(each.alias);
    if (identity.empty()) return unknown(fmt::format("columns of {} hide its rowid", each.name));
    const std::string source = fmt::format("main.{} AS {}", quoted_name(table.name), each.alias);
    from += fmt::format(" LEFT JOIN {} USING({})", source, key);
    present.push_back(fmt::format("{}.{} IS NOT NULL", each.alias, key));
    plan.links.push_back({folded(table.name), table.has_rowid,
                          table.has_rowid ? 0 : identity.size(),
                          fmt::format("SELECT {}.{} FROM {} WHERE {}", each.alias, key, source,
                                      publication::is_key(identity, "="))});
  }
  plan.select_row = plan.select_key = fmt::format(
      "SELECT {} FROM {} WHERE ({}){}", join.result_text, from, fmt::join(present, " OR "),
      join.where.empty() ? "" : fmt::format(" AND ({})", join.where));
  OFFPRINT_TRY(schema.prepare(plan.select_row));
  return {};
}

}  // namespace offprint::publication
