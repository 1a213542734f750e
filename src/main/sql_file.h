#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "base/result.h"
#include "sqlite/connection.h"

// From SQL scripts to local SQLite files.
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

}  // namespace offprint
