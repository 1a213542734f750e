#include "publication/source_table.h"

#include <algorithm>

#include <fmt/format.h>

#include "publication/sql_tokens.h"

namespace offprint::publication {

Result<> each_row(sqlite::Connection& connection, std::string_view sql,
                  const std::function<void(const sqlite::Statement&)>& visit) {
  OFFPRINT_TRY_ASSIGN(auto select, connection.prepare(sql));
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool found, select.step());
    if (!found) return {};
    visit(select);
  }
}

namespace {

// A table without the defaults of its columns: those of rows that are there stand in the rows, or
// are constants. SQLite tells of their functions as if who reads the column called them.
std::string without_defaults(std::string_view sql) {
  std::string result(sql);
  auto tokens = tokenize_whole(sql);
  if (!tokens) return result;
  for (std::size_t i = tokens->size(); i-- > 0;) {
    const Token& token = (*tokens)[i];
    const bool is_action = i > 0 && (*tokens)[i - 1].is_word("SET");  // ON DELETE SET DEFAULT
    if (!token.is_word("DEFAULT") || is_action || i + 1 == tokens->size()) continue;
    const Token& value = (*tokens)[i + 1];
    const bool is_current = value.is_word("CURRENT_TIME") || value.is_word("CURRENT_DATE") ||
                            value.is_word("CURRENT_TIMESTAMP");
    if (!value.is_operator("(") && !is_current) continue;
    const std::size_t behind = is_current ? i + 2 : behind_parenthesis(*tokens, i + 1);
    const Token& last = (*tokens)[behind - 1];
    result.replace(token.offset, last.offset + last.text.size() - token.offset, " ");
  }
  return result;
}

}  // namespace

Result<sqlite::Connection> copy_of_schema(sqlite::Connection& source) {
  OFFPRINT_TRY_ASSIGN(auto copy, sqlite::Connection::open(":memory:", {.create = true}));
  std::vector<std::string> statements;
  OFFPRINT_TRY(each_row(
      source,
      "SELECT sql FROM main.sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' "
      "ESCAPE '\\' ORDER BY type NOT IN ('table'), sql NOT LIKE 'CREATE VIRTUAL%', rowid",
      [&](const sqlite::Statement& row) { statements.emplace_back(row.column_text(0)); }));
  // Shadow tables came with their virtual tables, and a view may be broken.
  for (const std::string& sql : statements) (void)copy.execute(without_defaults(sql).c_str());
  return copy;
}

const SourceColumn* SourceTable::find(std::string_view column) const {
  auto found = std::ranges::find_if(
      columns, [&](const SourceColumn& each) { return folded(each.name) == folded(column); });
  return found == columns.end() ? nullptr : &*found;
}

std::vector<const SourceColumn*> SourceTable::key() const {
  std::vector<const SourceColumn*> found;
  for (const SourceColumn& column : columns) {
    if (column.key > 0) found.push_back(&column);
  }
  std::ranges::sort(found, {}, &SourceColumn::key);
  return found;
}

std::vector<std::string> SourceTable::identity(std::string_view alias) const {
  std::vector<std::string> names;
  auto add = [&](std::string_view column) { names.push_back(fmt::format("{}.{}", alias, column)); };
  if (!has_rowid) {
    for (const SourceColumn* column : key()) add(quoted_name(column->name));
  } else if (is_rowid_alias) {
    add(quoted_name(key()[0]->name));
  } else {
    for (const char* each : {"rowid", "_rowid_", "oid"}) {
      if (find(each) == nullptr && names.empty()) add(each);
    }
  }
  return names;
}

Result<SourceTable> read_source_table(sqlite::Connection& connection, const std::string& name) {
  SourceTable table;
  std::string type;
  OFFPRINT_TRY(each_row(
      connection,
      fmt::format("SELECT name, type, wr, strict FROM pragma_table_list WHERE schema='main' AND "
                  "name={} COLLATE NOCASE",
                  quoted_text(name)),
      [&](const sqlite::Statement& row) {
        table.name = row.column_text(0);
        type = row.column_text(1);
        table.has_rowid = row.column_int(2) == 0;
        table.is_strict = row.column_int(3) != 0;
      }));
  if (type.empty()) return fail(Code::kInvalid, "there is no such table");
  if (type != "table") {
    return fail(Code::kInvalid, fmt::format("it is a {}{}: publish a VIEW", type,
                                            type == "virtual" || type == "shadow" ? " table" : ""));
  }
  OFFPRINT_TRY(each_row(
      connection,
      fmt::format("SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo({})",
                  quoted_text(table.name)),
      [&](const sqlite::Statement& row) {
        table.columns.push_back({std::string(row.column_text(0)), std::string(row.column_text(1)),
                                 "", row.column_int(2) != 0, static_cast<int>(row.column_int(3))});
      }));
  for (SourceColumn& column : table.columns) {
    const char* collation = nullptr;
    if (sqlite3_table_column_metadata(connection.handle(), "main", table.name.c_str(),
                                      column.name.c_str(), nullptr, &collation, nullptr, nullptr,
                                      nullptr) == SQLITE_OK &&
        collation != nullptr)
      column.collation = collation;
  }
  int indexes_of_key = 0;
  OFFPRINT_TRY(each_row(
      connection,
      fmt::format("SELECT count(*) FROM pragma_index_list({}) WHERE origin='pk'",
                  quoted_text(table.name)),
      [&](const sqlite::Statement& row) { indexes_of_key = static_cast<int>(row.column_int(0)); }));
  table.is_rowid_alias = table.has_rowid && table.key().size() == 1 && indexes_of_key == 0;
  return table;
}

}  // namespace offprint::publication
