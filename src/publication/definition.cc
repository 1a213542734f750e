#include "publication/definition.h"

#include <algorithm>
#include <set>
#include <span>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "database/name.h"
#include "publication/sql_tokens.h"
#include "sqlite/connection.h"

namespace offprint::publication {
namespace {

constexpr std::size_t kNameSizeMax = 63;
constexpr std::size_t kSourcesMax = 16;
constexpr std::string_view kHome = "main";

bool is_publication_name(std::string_view name) {
  auto is_plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !name.empty() && name.size() <= kNameSizeMax && is_plain(name[0]) &&
         std::ranges::all_of(name, [&](char c) { return is_plain(c) || c == '_' || c == '-'; });
}

class DefinitionParser {
 public:
  DefinitionParser(std::string_view text, std::span<const Token> tokens)
      : text_(text), tokens_(tokens) {}

  Result<Definition> run() {
    OFFPRINT_TRY(expect("CREATE"));
    OFFPRINT_TRY(expect("PUBLICATION"));
    OFFPRINT_TRY_ASSIGN(definition_.name, take_publication_name());
    if (next_is('(')) OFFPRINT_TRY(parse_parameters());
    if (next_is("FROM")) OFFPRINT_TRY(parse_sources());
    OFFPRINT_TRY(expect("AS"));
    for (;;) {
      OFFPRINT_TRY(parse_item());
      if (!next_is(',')) break;
      ++at_;
    }
    if (next_is(';')) ++at_;
    if (at_ < tokens_.size()) return wrong("the end, or a comma and another item");
    OFFPRINT_TRY(check_names());
    return std::move(definition_);
  }

 private:
  bool next_is(char sign) const {
    return at_ < tokens_.size() && tokens_[at_].is_operator({&sign, 1});
  }
  bool next_is(std::string_view word) const {
    return at_ < tokens_.size() && tokens_[at_].is_word(word);
  }
  bool take(std::string_view word) {
    if (!next_is(word)) return false;
    ++at_;
    return true;
  }
  std::unexpected<Error> wrong(std::string_view expected) const {
    const std::size_t place = at_ < tokens_.size() ? tokens_[at_].offset : text_.size();
    const auto line = std::ranges::count(text_.substr(0, place), '\n') + 1;
    std::string found = at_ < tokens_.size() ? fmt::format("'{}'", tokens_[at_].text) : "the end";
    return fail(Code::kInvalid,
                fmt::format("PUBLICATION_SYNTAX: line {}: {} is expected where {} is", line,
                            expected, found));
  }
  Result<> expect(std::string_view word) { return take(word) ? Result<>() : Result<>(wrong(word)); }
  Result<> expect_sign(char sign) {
    if (!next_is(sign)) return wrong(std::string_view(&sign, 1));
    ++at_;
    return {};
  }
  Result<std::string> take_name() {
    using Kind = Token::Kind;
    if (at_ >= tokens_.size() ||
        (tokens_[at_].kind != Kind::kWord && tokens_[at_].kind != Kind::kQuotedName))
      return wrong("a name");
    return tokens_[at_++].name();
  }
  // Dashes and slashes are signs to SQL.
  std::string take_dashed_name() {
    std::string name;
    while (at_ < tokens_.size() && !next_is('(') && !next_is(',') && !next_is("AS") &&
           (name.empty() ||
            tokens_[at_].offset == tokens_[at_ - 1].offset + tokens_[at_ - 1].text.size()))
      name += tokens_[at_++].name();
    return name;
  }
  Result<std::string> take_publication_name() {
    const std::size_t begin = at_;
    std::string name = take_dashed_name();
    if (is_publication_name(name)) return name;
    at_ = begin;
    return wrong("a publication's name, [a-z0-9][a-z0-9_-]{0,62},");
  }

  // The text from here to one of the ends at this depth, or to the end of the parentheses around
  // it; it must not be empty.
  template <class IsEnd>
  Result<std::string> take_text(std::string_view what, IsEnd is_end) {
    const std::size_t begin = at_;
    const int depth = at_ < tokens_.size() ? tokens_[at_].depth : 0;
    while (at_ < tokens_.size() && (tokens_[at_].depth > depth || !is_end(tokens_[at_]))) {
      if (tokens_[at_].depth < depth) break;
      ++at_;
    }
    if (at_ == begin) return wrong(what);
    return text_between(begin, at_);
  }
  std::string text_between(std::size_t begin, std::size_t end) const {
    const Token& last = tokens_[end - 1];
    const std::size_t from = tokens_[begin].offset;
    return std::string(text_.substr(from, last.offset + last.text.size() - from));
  }

  Result<> parse_parameters() {
    ++at_;
    for (;;) {
      Parameter parameter;
      OFFPRINT_TRY_ASSIGN(parameter.name, take_name());
      if (take("INTEGER") || take("INT")) {
        parameter.type = Parameter::Type::kInteger;
      } else if (take("REAL")) {
        parameter.type = Parameter::Type::kReal;
      } else if (take("BLOB")) {
        parameter.type = Parameter::Type::kBlob;
      } else if (!take("TEXT")) {
        return wrong("a parameter's type, INTEGER, REAL, TEXT or BLOB,");
      }
      definition_.parameters.push_back(std::move(parameter));
      if (!next_is(',')) break;
      ++at_;
    }
    return expect_sign(')');
  }

  // FROM database [AS schema] [(table(columns), …)], …
  Result<> parse_sources() {
    definition_.sources_begin = tokens_[at_].offset;
    do {
      ++at_;
      SourceItem source;
      const std::size_t begin = at_;
      source.database = take_dashed_name();
      // The AS behind the last of them is the publication's own.
      const bool is_renamed = next_is("AS") && at_ + 1 < tokens_.size() && !begins_item(at_ + 1);
      if (is_renamed) {
        ++at_;
        OFFPRINT_TRY_ASSIGN(source.schema, take_name());
      } else if (source.database == kHome) {
        source.schema = std::exchange(source.database, "");
      } else {
        source.schema = source.database.substr(source.database.rfind('/') + 1);
      }
      if (!source.database.empty() && !database::DatabaseName::parse(source.database)) {
        at_ = begin;
        return wrong("the name of a database");
      }
      if (next_is('(')) OFFPRINT_TRY(parse_parts(source));
      definition_.sources.push_back(std::move(source));
    } while (next_is(','));
    const Token& last = tokens_[at_ - 1];
    definition_.sources_end = last.offset + last.text.size();
    return check_sources();
  }
  Result<> parse_parts(SourceItem& source) {
    source.is_listed = true;
    do {
      ++at_;
      auto& parts = take("INDEX") ? source.indexes : source.tables;
      SourceItem::Table table;
      OFFPRINT_TRY_ASSIGN(table.name, take_name());
      OFFPRINT_TRY_ASSIGN(table.columns, take_names());
      parts.push_back(std::move(table));
    } while (next_is(','));
    return expect_sign(')');
  }
  Result<> check_sources() const {
    std::set<std::string> schemas, databases;
    for (const SourceItem& source : definition_.sources) {
      const std::string schema = folded(source.schema);
      const bool is_taken = schema == "temp" || (schema == kHome && !source.database.empty());
      if (is_taken || !schemas.insert(schema).second) {
        return fail(Code::kInvalid, fmt::format("FROM {}: give it another name than {} by AS",
                                                source.database, source.schema));
      }
      if (!databases.insert(source.database).second)
        return fail(Code::kInvalid, fmt::format("FROM: {} is there twice", source.database));
    }
    if (definition_.sources.size() <= kSourcesMax) return {};
    return fail(Code::kInvalid, fmt::format("a publication has {} sources at most", kSourcesMax));
  }

  Result<> parse_item() {
    if (take("TABLE")) return parse_table();
    if (take("VIEW")) return parse_view();
    if (take("INDEX")) return parse_index();
    return wrong("TABLE, VIEW or INDEX");
  }

  static bool ends_item(const Token& token) {
    return token.is_operator(",") || token.is_operator(";") || token.is_word("REFRESH");
  }
  Result<bool> take_refresh() {
    if (!take("REFRESH")) return false;
    OFFPRINT_TRY(expect("FULL"));
    return true;
  }

  Result<> parse_table() {
    TableItem item;
    OFFPRINT_TRY_ASSIGN(item.source, take_name());
    if (next_is('.') && !definition_.sources.empty()) {
      ++at_;
      item.schema = std::move(item.source);
      OFFPRINT_TRY_ASSIGN(item.source, take_name());
    }
    item.name = item.source;
    OFFPRINT_TRY(expect_sign('('));
    if (next_is('*')) {
      item.star = tokens_[at_].offset;
      ++at_;
      item.all_columns = true;
    } else {
      OFFPRINT_TRY(parse_columns(item.columns));
    }
    OFFPRINT_TRY(expect_sign(')'));
    item.behind_columns = tokens_[at_ - 1].offset + 1;
    item.has_name = take("AS");
    if (item.has_name) {
      OFFPRINT_TRY_ASSIGN(item.name, take_name());
    }
    if (take("WHERE")) {
      OFFPRINT_TRY_ASSIGN(item.filter, take_text("a condition", ends_item));
    }
    OFFPRINT_TRY_ASSIGN(item.refresh_full, take_refresh());
    definition_.tables.push_back(std::move(item));
    return {};
  }

  // Names, and expressions with AS and a name.
  Result<> parse_columns(std::vector<PublishedColumn>& columns) {
    for (;;) {
      PublishedColumn column;
      const std::size_t begin = at_;
      OFFPRINT_TRY_ASSIGN(column.expression, take_text("a column", [](const Token& token) {
                            return token.is_operator(",") || token.is_word("AS");
                          }));
      if (take("AS")) {
        OFFPRINT_TRY_ASSIGN(column.name, take_name());
      } else if (at_ == begin + 1) {
        column.name = tokens_[begin].name();
      } else {
        return wrong("AS and a name (the column is an expression)");
      }
      columns.push_back(std::move(column));
      if (!next_is(',')) return {};
      ++at_;
    }
  }

  Result<std::vector<std::string>> take_names() {
    std::vector<std::string> names;
    OFFPRINT_TRY(expect_sign('('));
    for (;;) {
      OFFPRINT_TRY_ASSIGN(std::string name, take_name());
      names.push_back(std::move(name));
      if (!next_is(',')) break;
      ++at_;
    }
    OFFPRINT_TRY(expect_sign(')'));
    return names;
  }

  Result<> parse_view() {
    ViewItem item;
    OFFPRINT_TRY_ASSIGN(item.name, take_name());
    OFFPRINT_TRY_ASSIGN(item.columns, take_names());
    OFFPRINT_TRY(expect("KEY"));
    OFFPRINT_TRY_ASSIGN(item.key, take_names());
    OFFPRINT_TRY(expect("AS"));
    if (!next_is("SELECT") && !next_is("WITH")) return wrong("SELECT");
    // Its commas are its own: the next item begins with a comma and one of three words.
    OFFPRINT_TRY_ASSIGN(item.select, take_text("SELECT", [this](const Token& token) {
                          if (token.is_operator(";") || token.is_word("REFRESH")) return true;
                          if (!token.is_operator(",") || at_ + 2 >= tokens_.size()) return false;
                          return begins_item(at_ + 1);
                        }));
    OFFPRINT_TRY_ASSIGN(item.refresh_full, take_refresh());
    definition_.views.push_back(std::move(item));
    return {};
  }
  bool begins_item(std::size_t at) const {
    const Token& word = tokens_[at];
    std::size_t behind = at + 2;
    if (behind + 2 < tokens_.size() && tokens_[behind].is_operator(".")) behind += 2;
    const bool has_parenthesis = behind < tokens_.size() && tokens_[behind].is_operator("(");
    return has_parenthesis &&
           (word.is_word("TABLE") || word.is_word("VIEW") || word.is_word("INDEX"));
  }

  Result<> parse_index() {
    IndexItem item;
    OFFPRINT_TRY_ASSIGN(item.table, take_name());
    OFFPRINT_TRY(expect_sign('('));
    for (;;) {
      OFFPRINT_TRY_ASSIGN(std::string column, take_text("a column", [](const Token& token) {
                            return token.is_operator(",");
                          }));
      item.columns.push_back(std::move(column));
      if (!next_is(',')) break;
      ++at_;
    }
    definition_.indexes.push_back(std::move(item));
    return expect_sign(')');
  }

  Result<> check_names() const {
    std::set<std::string> seen;
    auto add = [&](const std::string& name) -> Result<> {
      const bool is_ours = folded(name) == "_offprint" ||
                           (folded(name) == kSourcesTable && !definition_.sources.empty());
      if (folded(name).starts_with("sqlite_") || is_ours)
        return fail(Code::kInvalid,
                    fmt::format("'{}' cannot be the name of what is published", name));
      if (seen.insert(folded(name)).second) return {};
      return fail(Code::kInvalid,
                  fmt::format("'{}' is published twice: give one AS another name", name));
    };
    for (const TableItem& item : definition_.tables) OFFPRINT_TRY(add(item.name));
    for (const ViewItem& item : definition_.views) OFFPRINT_TRY(add(item.name));
    if (seen.empty()) return fail(Code::kInvalid, "a publication has a table or a view at least");
    for (const IndexItem& item : definition_.indexes) {
      if (!seen.contains(folded(item.table)))
        return fail(Code::kInvalid,
                    fmt::format("INDEX {}: nothing of that name is published", item.table));
    }
    std::set<std::string> parameters;
    for (const Parameter& parameter : definition_.parameters) {
      // They stand beside it in addresses.
      constexpr std::array<std::string_view, 5> kTaken = {"from", "format", "table", "schema",
                                                          "data"};
      if (std::ranges::find(kTaken, parameter.name) != kTaken.end())
        return fail(Code::kInvalid,
                    fmt::format("'{}' cannot be the name of a parameter", parameter.name));
      if (!parameters.insert(parameter.name).second)
        return fail(Code::kInvalid, fmt::format("parameter '{}' is there twice", parameter.name));
    }
    return {};
  }

  const std::string_view text_;
  const std::span<const Token> tokens_;
  std::size_t at_ = 0;
  Definition definition_;
};

}  // namespace

std::string written_name(std::string_view name) {
  const auto is_letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  };
  const bool is_plain =
      !name.empty() && is_letter(name[0]) &&
      std::ranges::all_of(name, [&](char c) { return is_letter(c) || (c >= '0' && c <= '9'); });
  const std::string plain = folded(name);
  const bool is_word = plain == "refresh" || plain == "publication" ||
                       sqlite3_keyword_check(name.data(), static_cast<int>(name.size())) != 0;
  return is_plain && !is_word ? std::string(name) : quoted_name(name);
}

std::string written_source(const std::string& database, const std::string& schema) {
  if (database.empty()) return std::string(kHome);
  const std::string text = database == "as" ? quoted_name(database) : database;
  const bool is_known = database != kHome && database.substr(database.rfind('/') + 1) == schema;
  return is_known ? text : text + " AS " + written_name(schema);
}

std::string with_columns(std::string_view text, const Definition& definition,
                         const std::vector<std::vector<std::string>>& columns_of_tables) {
  std::string result(text);
  for (std::size_t i = definition.tables.size(); i-- > 0;) {
    const TableItem& item = definition.tables[i];
    if (item.all_columns)
      result.replace(item.star, 1, fmt::format("{}", fmt::join(columns_of_tables[i], ", ")));
  }
  return result;
}

Result<> check_parameters(const Definition& definition) {
  // They stand beside it in addresses.
  constexpr std::array<std::string_view, 11> kTaken = {
      "since",  "tables",    "wait",        "limit", "encodings",    "version",
      "header", "delimiter", "transaction", "query", "resultsFormat"};
  std::set<std::string> used;
  auto look = [&](std::string_view text) -> Result<> {
    OFFPRINT_TRY_ASSIGN(auto tokens, tokenize_whole(text));
    for (const Token& token : tokens) {
      if (token.kind == Token::Kind::kParameter) used.emplace(token.text);
    }
    return {};
  };
  for (const TableItem& item : definition.tables) {
    OFFPRINT_TRY(look(item.filter));
    for (const PublishedColumn& column : item.columns) OFFPRINT_TRY(look(column.expression));
  }
  for (const ViewItem& item : definition.views) OFFPRINT_TRY(look(item.select));
  for (const Parameter& parameter : definition.parameters) {
    if (std::ranges::find(kTaken, parameter.name) != kTaken.end())
      return fail(Code::kInvalid,
                  fmt::format("'{}' cannot be the name of a parameter", parameter.name));
    if (!used.contains(":" + parameter.name)) {
      return fail(Code::kInvalid,
                  fmt::format("PUBLICATION_REFUSED: parameter '{0}' is used nowhere: each of its "
                              "values would get the same; write :{0} where it is meant",
                              parameter.name));
    }
  }
  return {};
}

Result<Definition> parse_definition(std::string_view text) {
  OFFPRINT_TRY_ASSIGN(auto tokens, tokenize_whole(text));
  return DefinitionParser(text, tokens).run();
}

}  // namespace offprint::publication
