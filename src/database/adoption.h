#pragma once

#include "database/catalog.h"
#include "database/hosted_database.h"

namespace offprint::database {

// Store::adopt_file for a database that the catalog has.
Result<> adopt_into(Catalog& catalog, HostedDatabase& database, const AdoptedFile& file);

// Gives a catalog that was never written what StoreOptions::restore_catalog has.
Result<> restore_catalog(const StoreOptions& options, HostedDatabase& catalog);

}  // namespace offprint::database
