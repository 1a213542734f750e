#include "publication/gathering.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/consumer_reads.h"
#include "publication/source_table.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

// Tables, by name in lower case as they are written, of each source by its schema in lower case.
using TableNames = std::map<std::string, std::map<std::string, std::string>>;

// A table's name in the gathered database.
std::string gathered_name(const std::string& schema, const std::string& table) {
  return folded(schema) == "main" ? table : schema + "." + table;
}

const SourceItem* find_source(const Definition& definition, const std::string& schema) {
  auto found = std::ranges::find_if(definition.sources, [&](const SourceItem& source) {
    return folded(source.schema) == folded(schema);
  });
  return found == definition.sources.end() ? nullptr : &*found;
}

// "schema.table" at a token.
bool is_qualified(const Tokens& tokens, std::size_t i) {
  return i + 2 < tokens.size() && tokens[i].is_name() && tokens[i + 1].is_operator(".") &&
         tokens[i + 2].is_name() && (i == 0 || !tokens[i - 1].is_operator("."));
}

// Behind the name of a table no other name follows: another word of a SELECT does.
bool has_alias(const Tokens& tokens, std::size_t behind) {
  constexpr std::array<std::string_view, 24> kWords = {
      "LEFT",   "INNER",     "CROSS",   "OUTER",   "JOIN",  "ON",     "USING",     "NATURAL",
      "RIGHT",  "FULL",      "WHERE",   "GROUP",   "ORDER", "HAVING", "LIMIT",     "UNION",
      "EXCEPT", "INTERSECT", "REFRESH", "INDEXED", "NOT",   "WINDOW", "RETURNING", "SET"};
  if (behind >= tokens.size() || !tokens[behind].is_name()) return false;
  return std::ranges::none_of(kWords,
                              [&](std::string_view word) { return tokens[behind].is_word(word); });
}

// The text as one about the gathered database.
class Rewriting {
 public:
  Rewriting(const std::string& text, const Definition& definition, const TableNames& tables)
      : text_(text), definition_(definition), tables_(tables) {}

  Result<std::string> run() {
    OFFPRINT_TRY_ASSIGN(Tokens tokens, tokenize_whole(text_));
    edits_.push_back({definition_.sources_begin, definition_.sources_end, ""});
    for (const TableItem& item : definition_.tables) {
      if (!item.has_name && !item.schema.empty())
        edits_.push_back(
            {item.behind_columns, item.behind_columns, " AS " + quoted_name(item.name)});
    }
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i].offset >= definition_.sources_end && is_qualified(tokens, i)) rename(tokens, i);
    }
    std::ranges::sort(edits_, {}, &Edit::begin);
    std::string result;
    std::size_t at = 0;
    for (const Edit& edit : edits_) {
      result += text_.substr(at, edit.begin - at) + edit.text;
      at = edit.end;
    }
    return result + text_.substr(at);
  }

 private:
  struct Edit {
    std::size_t begin, end;
    std::string text;
  };
  void rename(const Tokens& tokens, std::size_t i) {
    const SourceItem* source = find_source(definition_, tokens[i].name());
    if (source == nullptr) return;
    const bool is_item = i > 0 && tokens[i - 1].is_word("TABLE");
    if (folded(source->schema) == "main" && !is_item) return;  // it means the same there
    auto schema = tables_.find(folded(source->schema));
    if (schema == tables_.end()) return;
    auto table = schema->second.find(folded(tokens[i + 2].name()));
    if (table == schema->second.end()) return;
    const std::size_t behind = i + 3;
    std::string name = quoted_name(gathered_name(source->schema, table->second));
    if (behind < tokens.size() && tokens[behind].is_operator(".")) {
      name = quoted_name(table->second);  // of a column
    } else if (!is_item) {
      const bool is_named =
          has_alias(tokens, behind) || (behind < tokens.size() && tokens[behind].is_word("AS"));
      if (!is_named) name += " AS " + quoted_name(table->second);
    }
    const Token& last = tokens[i + 2];
    edits_.push_back({tokens[i].offset, last.offset + last.text.size(), std::move(name)});
  }

  const std::string& text_;
  const Definition& definition_;
  const TableNames& tables_;
  std::vector<Edit> edits_;
};

std::string list_of(const std::vector<std::string>& names) {
  std::vector<std::string> quoted;
  for (const std::string& name : names) quoted.push_back(quoted_name(name));
  return fmt::format("({})", fmt::join(quoted, ","));
}

// The text of the publication of a source that its part is.
std::string part_text(const SourceItem& source) {
  std::vector<std::string> items;
  for (const SourceItem::Table& table : source.tables) {
    items.push_back(fmt::format("TABLE {}{} AS {}", quoted_name(table.name), list_of(table.columns),
                                quoted_name(gathered_name(source.schema, table.name))));
  }
  for (const SourceItem::Table& index : source.indexes) {
    items.push_back(fmt::format("INDEX {}{}", quoted_name(gathered_name(source.schema, index.name)),
                                list_of(index.columns)));
  }
  return fmt::format("CREATE PUBLICATION part AS {}", fmt::join(items, ", "));
}

TableNames listed_tables(const Definition& definition) {
  TableNames tables;
  for (const SourceItem& source : definition.sources) {
    for (const SourceItem::Table& table : source.tables)
      tables[folded(source.schema)].emplace(folded(table.name), table.name);
  }
  return tables;
}

std::unexpected<Error> refuse(const std::string& why) {
  return fail(Code::kInvalid, "PUBLICATION_REFUSED: " + why);
}

// Columns that rows are looked up by: those that stand beside "=", IS or IN, in USING, GROUP BY
// or KEY. In lower case; without their tables, so that there may be more than needed.
std::set<std::string> looked_up(const Tokens& tokens) {
  std::set<std::string> names;
  bool is_list = false;  // of GROUP BY
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const Token& token = tokens[i];
    const bool is_equal = token.is_operator("=") || token.is_operator("==") ||
                          token.is_word("IS") || token.is_word("IN");
    if (is_equal && i > 0 && tokens[i - 1].is_name()) names.insert(folded(tokens[i - 1].name()));
    if (is_equal || token.is_word("SELECT")) {
      std::size_t last = i + 1;
      while (last < tokens.size() && is_qualified(tokens, last)) last += 2;
      if (last < tokens.size() && tokens[last].is_name()) names.insert(folded(tokens[last].name()));
    }
    const bool is_named = (token.is_word("USING") || token.is_word("KEY")) &&
                          i + 1 < tokens.size() && tokens[i + 1].is_operator("(");
    if (is_named) {
      const std::size_t behind = behind_parenthesis(tokens, i + 1);
      for (std::size_t each = i + 2; each < behind; ++each) {
        if (tokens[each].is_name()) names.insert(folded(tokens[each].name()));
      }
    }
    if (token.is_word("BY")) is_list = true;
    if (token.is_word("HAVING") || token.is_word("ORDER") || token.is_word("LIMIT") ||
        token.is_word("VIEW") || token.is_word("TABLE"))
      is_list = false;
    if (is_list && token.is_name()) names.insert(folded(token.name()));
  }
  return names;
}

// Finds out what a publication takes of its sources.
class Listing {
 public:
  Listing(const std::string& text, const ReadSource& read) : text_(text), read_(read) {}

  Result<std::string> run() {
    OFFPRINT_TRY_ASSIGN(definition_, parse_definition(text_));
    OFFPRINT_TRY_ASSIGN(tokens_, tokenize_whole(text_));
    if (find_source(definition_, "main") == nullptr)
      definition_.sources.insert(definition_.sources.begin(),
                                 SourceItem{"", "main", false, {}, {}});
    OFFPRINT_TRY_ASSIGN(all_, sqlite::Connection::open(":memory:", {.create = true}));
    for (SourceItem& source : definition_.sources) OFFPRINT_TRY(look_at(source));
    OFFPRINT_TRY(find_reads());
    for (SourceItem& source : definition_.sources) {
      if (!source.is_listed) list(source);
    }
    std::erase_if(definition_.sources, [](const SourceItem& each) {
      return each.schema == "main" && each.tables.empty();
    });
    return written();
  }

 private:
  // The tables of a source that may be meant.
  Result<> look_at(SourceItem& source) {
    auto looked = read_(source.database, [&](sqlite::Connection& connection) -> Result<> {
      for (const std::string& name : candidates(source))
        OFFPRINT_TRY(look_at(connection, source, name));
      return {};
    });
    if (looked || looked.error().code() == Code::kInvalid) return looked;
    return fail(looked.error().code(), fmt::format("PUBLICATION_SOURCE: FROM {}: {}", source.schema,
                                                   looked.error().message()));
  }
  std::set<std::string> candidates(const SourceItem& source) const {
    std::set<std::string> names;
    for (const SourceItem::Table& table : source.tables) names.insert(folded(table.name));
    if (source.is_listed) return names;
    const bool is_home = source.schema == "main";
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      if (tokens_[i].offset < definition_.sources_end) continue;
      if (is_home && tokens_[i].is_name()) names.insert(folded(tokens_[i].name()));
      if (!is_home && is_qualified(tokens_, i) &&
          folded(tokens_[i].name()) == folded(source.schema))
        names.insert(folded(tokens_[i + 2].name()));
    }
    return names;
  }
  Result<> look_at(sqlite::Connection& connection, const SourceItem& source,
                   const std::string& name) {
    std::string& why = why_not_[folded(gathered_name(source.schema, name))];
    auto table = read_source_table(connection, name);
    // Any word of the text may be one of the own tables, and a schema's name that of a table.
    if (!table) {
      why = table.error().message();
      return {};
    }
    if (name == kPartsTable) return {};
    SourceItem part{"", source.schema, false, {}, {}};
    part.tables.push_back({table->name, {}});
    for (const SourceColumn& column : table->columns) part.tables[0].columns.push_back(column.name);
    OFFPRINT_TRY_ASSIGN(Definition definition, parse_definition(part_text(part)));
    auto plan = make_plan(connection, definition);
    if (!plan) {
      why = plan.error().message();
      refused_ += (refused_.empty() ? "" : "; ") + why;
      return {};
    }
    OFFPRINT_TRY(all_->execute(plan->items[0].create.c_str()));
    tables_[folded(source.schema)].emplace(folded(table->name), table->name);
    const std::string gathered = folded(gathered_name(source.schema, table->name));
    found_.emplace(gathered, *std::move(table));
    return {};
  }

  // Of TABLE items: what is meant is there.
  Result<> check_tables() {
    for (const TableItem& item : definition_.tables) {
      const std::string schema = item.schema.empty() ? "main" : folded(item.schema);
      if (find_source(definition_, schema) == nullptr)
        return refuse(fmt::format("TABLE {0}.{1}: FROM has no {0}", item.schema, item.source));
      if (tables_[schema].contains(folded(item.source))) continue;
      const std::string& why = why_not_[folded(gathered_name(schema, item.source))];
      return refuse(fmt::format("TABLE {}.{}: {}", schema, item.source,
                                why.empty() ? "what FROM takes has no such table" : why));
    }
    return {};
  }

  Result<> find_reads() {
    OFFPRINT_TRY(check_tables());
    OFFPRINT_TRY_ASSIGN(std::string text, Rewriting(text_, definition_, tables_).run());
    OFFPRINT_TRY_ASSIGN(Definition rewritten, parse_definition(text));
    auto add = [&](const std::string& item, const std::string& sql) -> Result<> {
      auto added = add_source_reads(*all_, sql, reads_);
      if (added) return {};
      return refuse(fmt::format("{}: {}{}", item, added.error().message(),
                                refused_.empty() ? "" : " (" + refused_ + ")"));
    };
    for (const TableItem& item : rewritten.tables) {
      std::vector<std::string> columns;
      for (const PublishedColumn& column : item.columns) columns.push_back(column.expression);
      if (item.all_columns) columns.emplace_back("*");
      OFFPRINT_TRY(add(
          "TABLE " + item.name,
          fmt::format("SELECT {} FROM main.{}{}", fmt::join(columns, ","), quoted_name(item.source),
                      item.filter.empty() ? "" : " WHERE (" + item.filter + ")")));
    }
    for (const ViewItem& item : rewritten.views) {
      OFFPRINT_TRY_ASSIGN(Tokens tokens, tokenize_whole(item.select));
      // What they join by would be what is taken.
      if (std::ranges::any_of(tokens, [](const Token& each) { return each.is_word("NATURAL"); }))
        return refuse("VIEW " + item.name + ": NATURAL in it");
      OFFPRINT_TRY(add("VIEW " + item.name, item.select));
    }
    return {};
  }

  // What is read of a source, its keys, and what USING may name; in the order of its columns.
  void list(SourceItem& source) {
    std::set<std::string> words;
    for (const Token& token : tokens_) {
      if (token.is_name()) words.insert(folded(token.name()));
    }
    const std::set<std::string> wanted = looked_up(tokens_);
    for (const auto& [plain, name] : tables_[folded(source.schema)]) {
      const std::string gathered = folded(gathered_name(source.schema, name));
      auto read = reads_.find(gathered);
      if (read == reads_.end()) continue;
      const SourceTable& table = found_.at(gathered);
      SourceItem::Table part{name, {}};
      const auto key = table.key();
      for (const SourceColumn& column : table.columns) {
        const std::string each = folded(column.name);
        if (column.key == 0 && !read->second.contains(each) && !words.contains(each)) continue;
        part.columns.push_back(column.name);
        const bool is_first = !key.empty() && key[0]->name == column.name;
        if (wanted.contains(each) && !is_first) source.indexes.push_back({name, {column.name}});
      }
      source.tables.push_back(std::move(part));
    }
  }

  std::string written() const {
    std::vector<std::string> sources;
    for (const SourceItem& source : definition_.sources) {
      std::string text = written_source(source.database, source.schema);
      std::vector<std::string> parts;
      auto add = [&](const char* word, const SourceItem::Table& table) {
        std::vector<std::string> columns;
        for (const std::string& column : table.columns) columns.push_back(written_name(column));
        parts.push_back(
            fmt::format("{}{}({})", word, written_name(table.name), fmt::join(columns, ", ")));
      };
      for (const SourceItem::Table& table : source.tables) add("", table);
      for (const SourceItem::Table& index : source.indexes) add("INDEX ", index);
      if (!parts.empty()) text += fmt::format("({})", fmt::join(parts, ", "));
      sources.push_back(std::move(text));
    }
    std::string result = text_;
    result.replace(definition_.sources_begin, definition_.sources_end - definition_.sources_begin,
                   fmt::format("FROM {}", fmt::join(sources, ",\n  ")));
    return result;
  }
  const std::string& text_;
  const ReadSource& read_;
  Definition definition_;
  Tokens tokens_;
  std::optional<sqlite::Connection> all_;  // all that may be meant, as it would be gathered
  TableNames tables_;
  std::map<std::string, SourceTable> found_;    // by their names there, in lower case
  std::string refused_;                         // tables that cannot be taken, and why
  std::map<std::string, std::string> why_not_;  // of what may be meant, by the same names
  ReadColumns reads_;
};

}  // namespace

Result<Gathering> gathering_of(const std::string& text) {
  Gathering gathering;
  OFFPRINT_TRY_ASSIGN(Definition definition, parse_definition(text));
  for (const SourceItem& source : definition.sources) {
    if (source.tables.empty())
      return refuse(fmt::format("FROM {}: nothing of it is published", source.schema));
    gathering.parts.push_back({source.schema, source.database, part_text(source)});
  }
  OFFPRINT_TRY_ASSIGN(gathering.definition,
                      Rewriting(text, definition, listed_tables(definition)).run());
  return gathering;
}

Result<std::string> with_parts(const std::string& text, const ReadSource& read) {
  return Listing(text, read).run();
}

Result<sqlite::Connection> gathered_schema(const Gathering& gathering, const ReadSource& read) {
  OFFPRINT_TRY_ASSIGN(auto gathered, sqlite::Connection::open(":memory:", {.create = true}));
  for (const Part& part : gathering.parts) {
    OFFPRINT_TRY_ASSIGN(Definition definition, parse_definition(part.definition));
    OFFPRINT_TRY(read(part.database, [&](sqlite::Connection& source) -> Result<> {
      OFFPRINT_TRY_ASSIGN(Plan plan, make_plan(source, definition));
      for (const ItemPlan& item : plan.items) OFFPRINT_TRY(gathered.execute(item.create.c_str()));
      for (const std::string& index : plan.indexes) OFFPRINT_TRY(gathered.execute(index.c_str()));
      return {};
    }));
  }
  return gathered;
}

}  // namespace offprint::publication
