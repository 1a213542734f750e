#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "sqlite/connection.h"

// Tables as a consumer names them, and what SQLite says about them.
namespace offprint::consumer {

// A column and the name that it gets.
struct ColumnUse {
  std::string column, name;
  bool operator==(const ColumnUse&) const = default;
};

// `movies.movie(title, length AS minutes) KEY(id)`: a table, which of its columns are meant and
// what tells its rows apart. Without columns: all but the key. Without KEY: its primary key.
struct TableUse {
  std::string schema = "main", table;
  std::vector<ColumnUse> columns;
  std::vector<std::string> key;
  std::string text() const { return schema == "main" ? table : schema + "." + table; }
  bool operator==(const TableUse&) const = default;
};
// kInvalid: not such a text.
Result<TableUse> parse_table_use(std::string_view text);

// A column of a table that exists.
struct KnownColumn {
  std::string column, name;
  std::string default_value;  // an expression; empty: none
  bool generated = false;     // nobody writes it
};
// A TableUse with everything said.
struct KnownTable {
  std::string schema, table;
  std::vector<std::string> key;  // columns
  std::vector<KnownColumn> columns;
  bool unique_key = false;  // SQLite keeps the key unique
  std::string text() const { return schema == "main" ? table : schema + "." + table; }
  // "schema"."table", as SQL.
  std::string sql() const;
};
// kInvalid: no such table or column; a table without a primary key that names no KEY.
Result<KnownTable> find_table(sqlite::Connection& connection, const TableUse& use);

}  // namespace offprint::consumer
