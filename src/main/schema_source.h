#pragma once

#include <string>

#include "main/remote.h"
#include "publication/schema_script.h"

namespace offprint {

// The schema at a URL of a database, in a script (.sql) or SQLite file, or else of the database of
// that name on the server. Blocks. kInvalid: nothing of these; errors of reading it.
Result<publication::SchemaScript> read_schema_at(const RemoteOptions& remote,
                                                 const std::string& where);

}  // namespace offprint
