#include "consumer/table_use.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "publication/sql_tokens.h"

namespace offprint::consumer {
namespace {

using publication::folded;
using publication::quoted_name;
using publication::Token;
using publication::Tokens;

// Reads names and signs from the left.
class Reader {
 public:
  explicit Reader(const Tokens& tokens) : tokens_(tokens) {}

  bool at_end() const { return at_ == tokens_.size(); }
  bool take(std::string_view sign) {
    if (at_end() || !tokens_[at_].is_operator(sign)) return false;
    ++at_;
    return true;
  }
  bool take_word(std::string_view upper) {
    if (at_end() || !tokens_[at_].is_word(upper)) return false;
    ++at_;
    return true;
  }
  // Empty: there is no name.
  std::string take_name() {
    if (at_end() || !tokens_[at_].is_name()) return {};
    return tokens_[at_++].name();
  }

 private:
  const Tokens& tokens_;
  std::size_t at_ = 0;
};

// What stands behind an opening parenthesis.
bool read_columns(Reader& reader, bool may_rename, std::vector<ColumnUse>& columns) {
  do {
    ColumnUse use;
    use.column = reader.take_name();
    if (use.column.empty()) return false;
    use.name = use.column;
    if (may_rename && reader.take_word("AS")) use.name = reader.take_name();
    if (use.name.empty()) return false;
    columns.push_back(std::move(use));
  } while (reader.take(","));
  return reader.take(")");
}

bool read_table_use(Reader& reader, TableUse& use) {
  use.table = reader.take_name();
  if (reader.take(".")) use.schema = std::exchange(use.table, reader.take_name());
  if (use.table.empty()) return false;
  if (reader.take("(") && !read_columns(reader, true, use.columns)) return false;
  if (reader.take_word("KEY")) {
    std::vector<ColumnUse> key;
    if (!reader.take("(") || !read_columns(reader, false, key)) return false;
    for (const ColumnUse& column : key) use.key.push_back(column.column);
  }
  return reader.at_end();
}

// Whether an index that is no partial one, or the primary key, keeps these columns unique.
Result<bool> is_unique(sqlite::Connection& connection, const TableUse& use,
                       std::vector<std::string> columns) {
  for (std::string& column : columns) column = folded(column);
  std::sort(columns.begin(), columns.end());
  OFFPRINT_TRY_ASSIGN(
      auto select,
      connection.prepare(
          "SELECT l.name, lower(i.name) FROM pragma_index_list(?1, ?2) l JOIN "
          "pragma_index_info(l.name, ?2) i WHERE l.\"unique\" AND NOT l.partial UNION ALL "
          "SELECT '', lower(name) FROM pragma_table_info(?1, ?2) WHERE pk > 0"));
  select.bind_text(1, use.table);
  select.bind_text(2, use.schema);
  std::map<std::string, std::vector<std::string>> indexes;
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool row, select.step());
    if (!row) break;
    indexes[std::string(select.column_text(0))].emplace_back(select.column_text(1));
  }
  return std::any_of(indexes.begin(), indexes.end(), [&](auto& index) {
    std::sort(index.second.begin(), index.second.end());
    return index.second == columns;
  });
}

}  // namespace

Result<TableUse> parse_table_use(std::string_view text) {
  OFFPRINT_TRY_ASSIGN(Tokens tokens, publication::tokenize_whole(text));
  Reader reader(tokens);
  TableUse use;
  if (read_table_use(reader, use)) return use;
  return fail(Code::kInvalid,
              fmt::format("'{}' names no table: such as movie, movies.movie or movies.movie(title, "
                          "length AS minutes) KEY(id)",
                          text));
}

std::string KnownTable::sql() const { return quoted_name(schema) + "." + quoted_name(table); }

Result<KnownTable> find_table(sqlite::Connection& connection, const TableUse& use) {
  OFFPRINT_TRY_ASSIGN(
      auto select, connection.prepare("SELECT name, coalesce(dflt_value, ''), pk, hidden FROM "
                                      "pragma_table_xinfo(?1, ?2) WHERE hidden <> 1 ORDER BY cid"));
  select.bind_text(1, use.table);
  select.bind_text(2, use.schema);
  std::vector<KnownColumn> all;
  std::vector<std::pair<std::int64_t, std::string>> primary;
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool row, select.step());
    if (!row) break;
    std::string name(select.column_text(0));
    if (select.column_int(2) > 0) primary.emplace_back(select.column_int(2), name);
    all.push_back({name, name, std::string(select.column_text(1)), select.column_int(3) != 0});
  }
  if (all.empty()) return fail(Code::kInvalid, "no such table: " + use.text());
  auto find = [&](const std::string& name) {
    return std::find_if(all.begin(), all.end(), [&](const KnownColumn& column) {
      return folded(column.column) == folded(name);
    });
  };
  KnownTable known{use.schema, use.table, {}, {}, false};
  std::sort(primary.begin(), primary.end());
  for (const auto& [rank, name] : primary)
    if (use.key.empty()) known.key.push_back(name);
  for (const std::string& name : use.key) {
    if (find(name) == all.end())
      return fail(Code::kInvalid, fmt::format("{} has no column {}", use.text(), name));
    known.key.push_back(find(name)->column);
  }
  if (known.key.empty())
    return fail(Code::kInvalid, use.text() + " has no primary key: say which columns are its KEY");
  for (const ColumnUse& column : use.columns) {
    auto found = find(column.column);
    if (found == all.end())
      return fail(Code::kInvalid, fmt::format("{} has no column {}", use.text(), column.column));
    known.columns.push_back(*found);
    known.columns.back().name = column.name;
  }
  auto is_key = [&](const KnownColumn& column) {
    return std::find(known.key.begin(), known.key.end(), column.column) != known.key.end();
  };
  if (use.columns.empty())
    std::copy_if(all.begin(), all.end(), std::back_inserter(known.columns),
                 [&](const KnownColumn& column) { return !is_key(column); });
  OFFPRINT_TRY_ASSIGN(known.unique_key, is_unique(connection, use, known.key));
  return known;
}

}  // namespace offprint::consumer
