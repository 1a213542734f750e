#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>

#include "base/result.h"
#include "database/script_reader.h"
#include "database/store.h"

// From scripts of SQL to new SQLite files.
namespace offprint::database {

// How far a load has come. `statements` and `rows` (changed ones, triggers included) count what was
// run, bytes what was read of the script.
struct LoadProgress {
  std::uint64_t bytes_done = 0;
  std::uint64_t statements = 0;
  std::uint64_t rows = 0;
};
// Told now and then on the loading thread, several times a second; false: give up.
using LoadWatcher = std::function<bool(const LoadProgress&)>;

struct LoadedScript {
  std::uint64_t statements = 0;
  std::uint64_t rows = 0;
  std::uint64_t broken_references = 0;  // rows whose foreign key points nowhere
};

// Runs a script on a new SQLite file, as one transaction where it says nothing else. The file is
// worthless after an error. Blocks. `options` is what the script may still change. The script
// reaches nothing but that file. Errors: "line N: message, in: beginning of the statement";
// kConflict "CANCELLED".
Result<LoadedScript> load_script(std::FILE* script, const std::string& database_path,
                                 const CreateOptions& options, const LoadWatcher& watcher);

// The error of a statement of a script, with its line and its beginning.
Error error_in_script(const Error& error, const ScriptStatement& statement, int offset);
std::unexpected<Error> cancelled();

// Calls a watcher as often as it wants to be called.
class LoadReporter {
 public:
  LoadReporter(std::FILE* script, const LoadWatcher& watcher)
      : script_(script), watcher_(watcher) {}
  LoadProgress progress;
  // False: give up.
  bool report();

 private:
  std::FILE* script_;
  const LoadWatcher& watcher_;
  Deadline next_{};
  bool given_up_ = false;
};

}  // namespace offprint::database
