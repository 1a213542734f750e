#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "database/store.h"
#include "publication/plan.h"
#include "sqlite/connection.h"

// What the queries of a publication's readers read: of what is published, and of its source.
namespace offprint::publication {

// Columns by table, both by name in lower case.
using ReadColumns = std::map<std::string, std::set<std::string>>;

// Adds the columns that a SELECT on a schema reads, but those that only USING and NATURAL name.
Result<> add_source_reads(sqlite::Connection& source, const std::string& sql, ReadColumns& reads);

// Fills in what a consumer's queries read of an instance of `plan`; nothing of it is run. kSql
// "NAME: SQLite's reason": a query does not compile there; kInvalid: it has no statement, or one
// that writes.
Result<> find_reads(const Plan& plan, database::StoredConsumer& consumer);

// The columns of the source's tables that what a consumer reads is made of: those of its columns,
// keys and conditions, and all that a view or an item that is read as a whole reads. kInvalid: the
// definition does not fit the source.
Result<ReadColumns> source_reads(sqlite::Connection& source, const Definition& definition,
                                 const database::StoredConsumer& consumer);

// The columns that a consumer reads can be made of the source as it is now.
bool still_reads(sqlite::Connection& source, const Definition& definition,
                 const database::StoredConsumer& consumer);

}  // namespace offprint::publication
