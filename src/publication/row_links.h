#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "publication/select_shape.h"
#include "publication/source_table.h"

// From a changed row of a table to the published rows that it may change.
namespace offprint::publication {

// A place where an item's SELECT reads a table.
struct RowLink {
  std::string table;         // in lower case
  bool has_rowid = true;     // @1 is the rowid; else @1… are the primary key's columns, which
  std::size_t key_size = 0;  // … are as many, and the first ones of the table's records
  std::string select;        // what identifies the item's rows that a row of the table is part of
};

// Finds, by keys, what depends on what. `keys`: expressions that identify an item's row. Statements
// that would read a table as a whole are refused. Thread: one at a time.
class LinkPlanner {
 public:
  // The connection has the source's schema.
  LinkPlanner(sqlite::Connection& schema, const SelectShape& shape, std::vector<std::string> keys)
      : schema_(schema), shape_(shape), keys_(std::move(keys)) {}

  // For each place but those of the first `without` tables of the outermost SELECT. A row is part
  // of what the item says in a state only if its link finds the item's row in that state.
  Result<std::vector<RowLink>> links(std::size_t without);
  // Of an item's row (its keys are @1…) the columns that must equal the parameters, in their order;
  // empty: not known.
  std::string routes(const std::vector<std::string>& parameters);

 private:
  sqlite::Connection& schema_;
  const SelectShape& shape_;
  const std::vector<std::string> keys_;
};

// kInvalid: SQLite reads a table, or an index, from end to end for that statement.
Result<> check_is_searched(sqlite::Connection& schema, const std::string& sql);

// "a IS @1 AND b IS @2". Of what is never NULL the sign "=" lets SQLite do more.
std::string is_key(const std::vector<std::string>& expressions, std::string_view sign = "IS");

}  // namespace offprint::publication
