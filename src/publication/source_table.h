#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "ltx/types.h"
#include "sqlite/connection.h"

namespace offprint::publication {

// A column of a table of the source.
struct SourceColumn {
  std::string name, type, collation;
  bool not_null = false;
  int key = 0;  // its place in the primary key, from 1
};

// A table of the source, as SQLite tells it.
struct SourceTable {
  std::string name;  // as it was created
  bool has_rowid = true, is_strict = false;
  bool is_rowid_alias = false;  // the key is an INTEGER PRIMARY KEY
  std::vector<SourceColumn> columns;

  const SourceColumn* find(std::string_view column) const;
  std::vector<const SourceColumn*> key() const;
  // What tells its rows apart: the rowid, or the primary key of one that has none. `alias`: quoted,
  // before each. Empty: columns hide the rowid.
  std::vector<std::string> identity(std::string_view alias) const;
};

// kInvalid: there is no such table, or it is something else.
Result<SourceTable> read_source_table(sqlite::Connection& connection, const std::string& name);

// A database in memory with the source's tables, without their rows and what columns have by
// default. What cannot be made there is
// left out: who uses it meets an error.
Result<sqlite::Connection> copy_of_schema(sqlite::Connection& source);

Result<> each_row(sqlite::Connection& connection, std::string_view sql,
                  const std::function<void(const sqlite::Statement&)>& visit);

}  // namespace offprint::publication
