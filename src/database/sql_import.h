#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "base/result.h"
#include "database/sql_load.h"
#include "database/store.h"

// Scripts of SQL into hosted databases.
namespace offprint::database {

struct ImportOptions {
  LoadWatcher watcher;                     // may be empty
  std::string scratch_directory = "/tmp";  // needs the space of a new database
};
struct ImportResult {
  std::uint64_t statements = 0;
  std::uint64_t rows = 0;               // changed, triggers included
  std::uint64_t broken_references = 0;  // rows whose foreign key points nowhere
  Bookmark bookmark;                    // after it
};

// Runs a script as one transaction: all of it or nothing, whatever its size, also when the process
// dies meanwhile. Makes the database when it is absent; a new or empty one takes page size and
// encoding from the script. Its own BEGIN and COMMIT, and pragmas that dumps begin with, are read
// over. While it runs on a database with content, other writers of that database are refused with
// kBusy "IMPORT_RUNNING"; reads go on. Memory: the longest statement. Blocks, for as long as it
// takes: not for helper threads of the store.
// Errors: as load_script(); kConflict when somebody else wrote to the empty database meanwhile.
Result<ImportResult> import_sql(Store& store, const DatabaseName& name, const std::string& path,
                                const ImportOptions& options);

}  // namespace offprint::database
