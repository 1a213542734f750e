#pragma once

#include "database/catalog.h"
#include "database/hosted_database.h"

namespace offprint::database {

// Store::adopt_file for a database that the catalog has.
Result<> adopt_into(Catalog& catalog, HostedDatabase& database, const AdoptedFile& file);

// kConflict: it has transactions of its own.
Result<> check_is_unwritten(HostedDatabase& database);
// What the file shows, as long as it is there. kInvalid: it is no database file of that size.
Result<std::unique_ptr<Snapshot>> open_adopted(FileSystem& files, const AdoptedFile& file);

// Gives a catalog that was never written what StoreOptions::restore_catalog has.
Result<> restore_catalog(const StoreOptions& options, HostedDatabase& catalog);

}  // namespace offprint::database
