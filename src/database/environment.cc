#include "database/environment.h"

#include <cstdlib>

#include "base/log.h"

namespace offprint::database {

Result<> remove_database_files(FileSystem& files, const std::string& path) {
  Result<> first;
  for (const char* suffix : {"-wal", "-shm", "-journal", ""}) {
    if (Result<> removed = files.remove(path + suffix); !removed && first)
      first = std::move(removed);
  }
  return first;
}

void Environment::fatal(const Error& error) {
  if (options.on_fatal) return options.on_fatal(error);
  log::error("stopping at once, to recover at the next start: {}", error.message());
  std::_Exit(1);
}

std::shared_ptr<StatementMeter> Environment::meter_of(std::uint64_t database_id,
                                                      const std::string& name) {
  return std::make_shared<StatementMeter>(insights.of(database_id), usage.of(database_id, name));
}

}  // namespace offprint::database
