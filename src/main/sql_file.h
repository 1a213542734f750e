#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "base/result.h"
#include "sqlite/connection.h"

// SQL scripts on one side, local SQLite files on the other.
namespace offprint {

struct NewFileOptions {
  std::uint32_t page_size = 4096;
  int auto_vacuum = 0;
  std::string encoding = "UTF-8";
};

struct LoadedScript {
  std::uint64_t statements = 0;
  std::uint64_t broken_references = 0;  // rows whose foreign key points nowhere
};

// Runs a script on a new SQLite file, as one transaction where it says nothing else. The file is
// worthless after an error. Blocks. `page_size` and its like are what the script may still change.
// Errors: "line N: …" with the line within the script.
Result<LoadedScript> load_script(std::FILE* script, const std::string& database_path,
                                 const NewFileOptions& options);

// Writes a database as a script that makes an equal one: rows keep their rowids, virtual tables
// their contents. Reads one consistent state. Blocks.
Result<> dump_script(sqlite::Connection& database, std::FILE* to);

}  // namespace offprint
