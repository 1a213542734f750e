#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "publication/contract_findings.h"
#include "publication/contract_set.h"
#include "publication/schema_scratch.h"

// What the rules share. Each check_…() looks at one side of the change and adds findings.
namespace offprint::publication {

struct Context {
  ScratchDatabase& old_database;
  ScratchDatabase& new_database;
  const std::vector<Contract>& contracts;
  Readers readers;
  Findings& findings;
  int min_sqlite = 0;          // as SQLITE_VERSION_NUMBER; 0: not asked
  std::string min_sqlite_who;  // "contract orders@v2", "--min-sqlite"

  // A database with rows to try the change on; its tables may have the old shape or the new one.
  sqlite::Connection* sample = nullptr;
  std::int64_t large_pages = 1'000;

  // Folded names of tables and views that registered queries with a changed result read.
  std::set<std::string> changed_by_position;

  const Schema& before() const { return old_database.schema(); }
  const Schema& after() const { return new_database.schema(); }

  // A finding about a table, view or trigger, or a column of it, where the new schema makes it.
  void add(std::string_view rule, const std::string& object, const std::string& column,
           std::string message, std::optional<Severity> severity = std::nullopt);
};

// A name in a message.
std::string quoted(std::string_view name);

void check_tables(Context& context);   // what came, went or became something else
void check_columns(Context& context);  // of tables that both have
void check_keys(Context& context);     // keys, indexes, CHECKs
void check_views(Context& context);
void check_cost(Context& context);  // rebuilds and rewrites
Result<> check_queries(Context& context);
Result<> check_file(Context& context);
void check_filters(Context& context);
Result<> check_data(Context& context);

}  // namespace offprint::publication
