#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "publication/plan.h"
#include "sqlite/connection.h"

// SELECT … FROM a FULL JOIN b USING(key) FULL JOIN … [WHERE …]: all rows of tables that have one
// key, whichever of them has it.
namespace offprint::publication {

struct FullJoin {
  struct Table {
    std::string name, alias;  // the alias is quoted
  };
  std::vector<Table> tables;
  std::string key;                   // the column of all USING
  std::vector<std::string> results;  // without AS and name
  std::string result_text;           // as they stand there
  std::string where;                 // empty: none
};

// Nothing: it has no FULL JOIN. kInvalid: it has, but is not of that shape.
Result<std::optional<FullJoin>> parse_full_join(std::string_view sql);

// How a view of that shape is kept row by row. kInvalid: the key is not what tells rows apart in
// all tables, in one way.
Result<> plan_full_join(sqlite::Connection& schema, const FullJoin& join, ItemPlan& plan);

}  // namespace offprint::publication
