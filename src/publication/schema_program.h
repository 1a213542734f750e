#pragma once

#include <map>
#include <set>
#include <string>

#include "publication/schema_scratch.h"

// What compiled statements do, as EXPLAIN and the authorizer tell.
namespace offprint::publication {

// Folded "table.column" that the statement's program reads: USING and NATURAL joins included, of
// which the authorizer tells nothing, views looked through. Columns that SQLite found a way around
// are left out.
Result<std::set<std::string>> columns_of_program(ScratchDatabase& database, const std::string& sql);

// Folded table or view, folded column; the column is empty where only the rows count.
using NamedColumns = std::set<std::pair<std::string, std::string>>;
// What the statement itself names, not what the views and triggers behind it do.
Result<NamedColumns> names_in_statement(ScratchDatabase& database, const std::string& sql);

enum class Access { kSearch, kScan };
// By the name that a table has in the query; a table that is scanned anywhere counts as scanned.
Result<std::map<std::string, Access>> plan_of(ScratchDatabase& database, const std::string& sql);

}  // namespace offprint::publication
