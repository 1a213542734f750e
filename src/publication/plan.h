#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "ltx/types.h"
#include "publication/definition.h"
#include "sqlite/connection.h"

// What a definition means in a database as it is now, checked by SQLite itself.
namespace offprint::publication {

// One published table. Statements take the publication's parameters by their names, and what
// identifies a row as ?1 and the following.
struct ItemPlan {
  std::string name;
  std::vector<std::string> columns;  // quoted
  std::vector<std::size_t> key;      // which of the columns
  std::string create;                // the table, in an instance
  std::string select_all;            // its columns, on the source
  std::set<std::string> reads;       // tables of the source, in lower case

  // Of those that are kept row by row; else `source` is empty, and all of it is read again when one
  // of those tables changed.
  std::string source;
  PageNo root = 0;
  bool has_rowid = true;     // ?1 is the rowid; else ?1… are the primary key's columns, which
  std::size_t key_size = 0;  // … are as many, and the first ones of the table's records
  std::string select_row;    // its columns, if the row is published
  // For each parameter the column of the source that must equal it; nothing: not known, any
  // instance may have the row.
  std::vector<std::string> routes;
  std::string select_routes;  // those of a row
};

struct Plan {
  Definition definition;
  std::vector<ItemPlan> items;
  std::vector<std::string> indexes;                     // statements for an instance
  std::set<std::pair<std::string, std::string>> reads;  // tables and columns, in lower case
  std::string hash;  // of what an instance's schema and content follow from, as 32 hex digits
};

// `source` reads the state of a database. kInvalid "PUBLICATION_…: why it cannot be published so".
Result<Plan> make_plan(sqlite::Connection& source, const Definition& definition);

}  // namespace offprint::publication
