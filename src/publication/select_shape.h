#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

// A SELECT as far as it must be known to tell which of its rows depend on a row of a table. SQLite
// decides what everything in it means; what is not known here is refused.
namespace offprint::publication {

// A SELECT, or one within it, by what stands behind its FROM and WHERE.
struct SelectScope {
  struct Source {
    std::string table;
    std::string alias;  // quoted: the name before its columns
  };
  // `column = :parameter`, a condition that must hold.
  struct Equality {
    std::string column, parameter;
  };
  int parent = -1;  // the scope that this one stands in; of the outermost one -1
  std::vector<Source> sources;
  std::string from;  // what stands behind FROM
  bool has_outer_join = false;
  // Those of its conditions, joined by AND, that have no SELECT in them and no parameter. None
  // with an outer join: a row that fulfils none of them may still make another one fail.
  std::vector<std::string> conditions;
  std::vector<Equality> equalities;
  std::string link;          // of `x IN (SELECT y …)`: "x = y"
  bool is_required = false;  // no row of the outermost SELECT is without one of this
};

// All expressions name the tables of their columns, so that they mean the same beside others.
// SELECT results FROM tables [JOIN …] [WHERE …] [GROUP BY …] [HAVING …] [ORDER BY …], with EXISTS,
// scalar and IN subqueries of that shape.
struct SelectShape {
  std::vector<std::string> results;  // expressions, without AS and name
  std::vector<std::string> groups;   // expressions of GROUP BY
  bool is_grouped = false;
  std::vector<SelectScope> scopes;  // the first one is the SELECT itself

  std::string head, where, tail;  // up to WHERE; its condition; what stands behind it
  // The same of those of its rows, before they are grouped, of which this holds, too.
  std::string restricted_to(std::string_view condition) const;
  // The FROM of a scope and all that it stands in.
  std::string from_of(std::size_t scope) const;
  // The conditions of these, and what links them.
  std::vector<std::string> conditions_of(std::size_t scope) const;
};

// Whether a table has a column of that name.
using HasColumn = std::function<bool(const std::string& table, const std::string& column)>;

// kInvalid: what it has that none of these has.
Result<SelectShape> parse_select(std::string_view sql, const HasColumn& has_column);

}  // namespace offprint::publication
