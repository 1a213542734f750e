#include "publication/schema_model.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/schema_table_text.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

class Reader {
 public:
  explicit Reader(sqlite::Connection& db) : db_(db) {}

  Result<Schema> read() {
    OFFPRINT_TRY(read_tables());
    for (auto& [key, table] : schema_.tables) {
      OFFPRINT_TRY(read_columns(table));
      if (table.kind != Table::Kind::kTable) continue;
      OFFPRINT_TRY(read_indexes(table));
      OFFPRINT_TRY(read_foreign_keys(table));
      find_rowid_alias(table);
      read_table_text(table);
    }
    OFFPRINT_TRY(read_triggers());
    return std::move(schema_);
  }

 private:
  Result<> read_tables() {
    OFFPRINT_TRY_ASSIGN(
        auto rows,
        db_.prepare("SELECT l.name, l.type, l.wr, l.strict, s.sql FROM pragma_table_list l"
                    " JOIN main.sqlite_schema s ON s.name = l.name AND s.type IN ('table','view')"
                    " WHERE l.schema = 'main' AND l.type <> 'shadow'"
                    " AND substr(l.name, 1, 7) <> 'sqlite_'"));
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool row, rows.step());
      if (!row) return {};
      Table table;
      table.name = rows.column_text(0);
      const std::string_view type = rows.column_text(1);
      table.kind = type == "view"      ? Table::Kind::kView
                   : type == "virtual" ? Table::Kind::kVirtual
                                       : Table::Kind::kTable;
      table.without_rowid = rows.column_int(2) != 0;
      table.strict = rows.column_int(3) != 0;
      table.sql = rows.column_text(4);
      schema_.tables.emplace(folded(table.name), std::move(table));
    }
  }

  Result<> read_columns(Table& table) {
    OFFPRINT_TRY_ASSIGN(auto rows,
                        db_.prepare("SELECT name, type, \"notnull\", dflt_value, pk, hidden"
                                    " FROM pragma_table_xinfo(?)"));
    rows.bind_text(1, table.name);
    for (;;) {
      Result<bool> row = rows.step();
      // A view that does not compile is found by compiling it.
      if (!row && table.kind == Table::Kind::kView) return {};
      if (!row) return fail(row.error());
      if (!*row) return {};
      Column column;
      column.name = rows.column_text(0);
      column.declared_type = rows.column_text(1);
      column.affinity = affinity_of(column.declared_type, table.strict);
      column.has_not_null = column.not_null = rows.column_int(2) != 0;
      column.default_value = rows.column_text(3);
      column.key_position = static_cast<int>(rows.column_int(4));
      const std::int64_t hidden = rows.column_int(5);
      column.hidden = hidden == 1;
      column.generated = hidden >= 2;
      column.stored = hidden == 3;
      if (table.kind == Table::Kind::kTable) read_collation(table, column);
      table.columns.push_back(std::move(column));
    }
  }

  void read_collation(Table& table, Column& column) {
    const char* collation = nullptr;
    int autoincrement = 0;
    const int code =
        sqlite3_table_column_metadata(db_.handle(), "main", table.name.c_str(), column.name.c_str(),
                                      nullptr, &collation, nullptr, nullptr, &autoincrement);
    if (code != SQLITE_OK) return;
    column.collation = folded(collation == nullptr ? "binary" : collation);
    table.autoincrement = table.autoincrement || autoincrement != 0;
  }

  Result<> read_indexes(Table& table) {
    OFFPRINT_TRY_ASSIGN(
        auto rows, db_.prepare("SELECT l.name, l.\"unique\", l.origin, l.partial, s.sql FROM"
                               " pragma_index_list(?) l LEFT JOIN main.sqlite_schema s"
                               " ON s.name = l.name AND s.type = 'index' ORDER BY l.seq DESC"));
    rows.bind_text(1, table.name);
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool row, rows.step());
      if (!row) return {};
      Index index;
      index.name = rows.column_text(0);
      index.unique = rows.column_int(1) != 0;
      index.origin = rows.column_text(2);
      index.partial = rows.column_int(3) != 0;
      const IndexText text = read_index_text(rows.column_text(4));
      index.where = text.where;
      OFFPRINT_TRY(read_index_keys(index, text));
      table.indexes.push_back(std::move(index));
    }
  }

  Result<> read_index_keys(Index& index, const IndexText& text) {
    OFFPRINT_TRY_ASSIGN(auto keys,
                        db_.prepare("SELECT seqno, cid, name, \"desc\", coll FROM"
                                    " pragma_index_xinfo(?) WHERE key = 1 ORDER BY seqno"));
    keys.bind_text(1, index.name);
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool row, keys.step());
      if (!row) return {};
      const auto number = static_cast<std::size_t>(keys.column_int(0));
      const std::int64_t column = keys.column_int(1);
      std::string name = column >= 0 ? folded(keys.column_text(2)) : "";
      std::string key = column >= 0                        ? name
                        : column == -1                     ? "rowid"
                        : number < text.expressions.size() ? text.expressions[number]
                                                           : "(expression)";
      key += " collate " + folded(keys.column_text(4));
      if (keys.column_int(3) != 0) key += " desc";
      index.keys.push_back(std::move(key));
      index.key_names.push_back(std::move(name));
    }
  }

  Result<> read_foreign_keys(Table& table) {
    OFFPRINT_TRY_ASSIGN(auto rows,
                        db_.prepare("SELECT id, \"table\", \"from\", \"to\", on_update, on_delete"
                                    " FROM pragma_foreign_key_list(?) ORDER BY id DESC, seq"));
    rows.bind_text(1, table.name);
    for (std::int64_t last = -1;;) {
      OFFPRINT_TRY_ASSIGN(bool row, rows.step());
      if (!row) return {};
      if (const std::int64_t id = rows.column_int(0); id != last) {
        last = id;
        table.foreign_keys.emplace_back();
      }
      ForeignKey& key = table.foreign_keys.back();
      key.parent = folded(rows.column_text(1));
      key.from.push_back(folded(rows.column_text(2)));
      if (rows.column_type(3) != SQLITE_NULL) key.to.push_back(folded(rows.column_text(3)));
      key.actions =
          fmt::format("on update {} on delete {}", rows.column_text(4), rows.column_text(5));
    }
  }

  // INTEGER PRIMARY KEY is the rowid, unless it has an index (… DESC has).
  static void find_rowid_alias(Table& table) {
    const std::vector<std::string> key = table.key();
    if (table.without_rowid || key.size() != 1) return;
    const bool has_index =
        std::ranges::any_of(table.indexes, [](const Index& index) { return index.origin == "pk"; });
    auto column = std::ranges::find_if(table.columns,
                                       [](const Column& item) { return item.key_position == 1; });
    if (has_index || folded(column->declared_type) != "integer") return;
    column->not_null = true;
    table.rowid_alias = key.front();
  }

  Result<> read_triggers() {
    OFFPRINT_TRY_ASSIGN(
        auto rows,
        db_.prepare("SELECT name, tbl_name, sql FROM main.sqlite_schema WHERE type = 'trigger'"));
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool row, rows.step());
      if (!row) return {};
      Trigger trigger{std::string(rows.column_text(0)), std::string(rows.column_text(1)),
                      std::string(rows.column_text(2))};
      std::string key = folded(trigger.name);
      schema_.triggers.emplace(std::move(key), std::move(trigger));
    }
  }

  sqlite::Connection& db_;
  Schema schema_;
};

}  // namespace

std::string_view affinity_name(Affinity affinity) {
  switch (affinity) {
    case Affinity::kBlob:
      return "BLOB";
    case Affinity::kText:
      return "TEXT";
    case Affinity::kNumeric:
      return "NUMERIC";
    case Affinity::kInteger:
      return "INTEGER";
    case Affinity::kReal:
      return "REAL";
  }
  return "";
}

Affinity affinity_of(std::string_view declared_type, bool strict) {
  const std::string type = folded(declared_type);
  if (strict && type == "any") return Affinity::kBlob;
  if (contains(type, "int")) return Affinity::kInteger;
  for (std::string_view part : {"char", "clob", "text"}) {
    if (contains(type, part)) return Affinity::kText;
  }
  if (type.empty() || contains(type, "blob")) return Affinity::kBlob;
  for (std::string_view part : {"real", "floa", "doub"}) {
    if (contains(type, part)) return Affinity::kReal;
  }
  return Affinity::kNumeric;
}

std::string ForeignKey::text() const {
  std::string names = fmt::format("({}) references {}", fmt::join(from, ", "), parent);
  return to.empty() ? names : fmt::format("{}({})", names, fmt::join(to, ", "));
}

const Column* Table::column(std::string_view wanted) const {
  const std::string key = folded(wanted);
  auto found =
      std::ranges::find_if(columns, [&](const Column& item) { return folded(item.name) == key; });
  return found == columns.end() ? nullptr : &*found;
}

std::vector<std::string> Table::key() const {
  std::vector<std::pair<int, std::string>> parts;
  for (const Column& item : columns) {
    if (item.key_position > 0) parts.emplace_back(item.key_position, folded(item.name));
  }
  std::ranges::sort(parts);
  std::vector<std::string> names;
  for (auto& [position, part] : parts) names.push_back(std::move(part));
  return names;
}

std::vector<const Column*> Table::visible() const {
  std::vector<const Column*> list;
  for (const Column& item : columns) {
    if (!item.hidden) list.push_back(&item);
  }
  return list;
}

const Table* Schema::table(std::string_view name) const {
  auto found = tables.find(folded(name));
  return found == tables.end() ? nullptr : &found->second;
}

Result<Schema> read_schema(sqlite::Connection& db) { return Reader(db).read(); }

}  // namespace offprint::publication
