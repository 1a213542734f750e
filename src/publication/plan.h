#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "ltx/types.h"
#include "publication/definition.h"
#include "publication/row_links.h"
#include "sqlite/connection.h"

// What a definition means in a database as it is now, checked by SQLite itself.
namespace offprint::publication {

// One published table. Statements take the publication's parameters by their names, and what
// identifies a row as @1 and the following.
struct ItemPlan {
  std::string name;
  std::vector<std::string> columns;  // quoted
  std::vector<std::size_t> key;      // which of the columns
  std::string create;                // the table, in an instance
  std::string select_all;            // its columns, on the source
  std::set<std::string> reads;       // tables of the source, in lower case

  // Of those that are kept row by row; else all of it is read again when one of those tables
  // changed. Places where tables are read: without a SELECT it is the row itself that identifies
  // the published one.
  std::vector<RowLink> links;
  std::string select_row;  // the published row that @1… identify
  std::string select_key;  // published rows whose key is @1…: several, where some of that is NULL
  // What of such a row must equal the parameters; empty: not known, any instance may have it.
  std::string select_routes;

  bool is_by_row() const { return !select_row.empty(); }
};

struct Plan {
  Definition definition;
  std::vector<ItemPlan> items;
  std::vector<std::string> indexes;  // statements for an instance
  bool reads_dates = false;          // a date function is called somewhere
  // "TABLE items: why": what does not say REFRESH FULL, and is read as a whole for all that.
  std::vector<std::string> read_whole;
  std::string hash;  // of what an instance's schema and content follow from, as 32 hex digits
};

// What becomes of what cannot be kept row by row though it does not say REFRESH FULL.
enum class Unkeyed { kRefuse, kReadWhole };

// `source` reads the state of a database. kInvalid "PUBLICATION_…: why it cannot be published so".
Result<Plan> make_plan(sqlite::Connection& source, const Definition& definition,
                       Unkeyed unkeyed = Unkeyed::kReadWhole);

}  // namespace offprint::publication
