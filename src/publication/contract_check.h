#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "publication/contract_findings.h"
#include "publication/contract_set.h"
#include "publication/schema_script.h"

// The checker of schema changes: what a change from one schema to another breaks for those who read
// by contracts. For users: docs/contracts.md.
namespace offprint::publication {

struct CheckOptions {
  Severities severities;
  std::string min_sqlite;            // besides those of the contracts; empty: not asked
  std::string today;                 // "2026-11-22": on which ignores are judged
  std::string sample;                // path of a database or script with rows; empty: none
  std::int64_t large_pages = 1'000;  // a table of the sample from which on a rewrite is large
  // What would break readers if there were any is told as a warning. Without contracts nothing
  // counts as read then.
  bool tells_unread = false;
};

struct CheckReport {
  std::vector<Finding> findings;  // by place
  int errors = 0, warnings = 0, ignored = 0;
};

// Without contracts everything of `before` counts as read.
// Thread: any; blocks. Memory: both schemas, and 100,000 rows of each table of the sample.
// Errors: kSql: a schema that SQLite refuses; kInvalid: an option; of reading the sample.
Result<CheckReport> check_contracts(const SchemaScript& before, const SchemaScript& after,
                                    const std::vector<Contract>& contracts,
                                    const CheckOptions& options);

}  // namespace offprint::publication
