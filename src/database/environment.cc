#include "database/environment.h"

#include <cstdlib>

#include "base/log.h"

namespace offprint::database {

void Environment::fatal(const Error& error) {
  if (options.on_fatal) return options.on_fatal(error);
  log::error("stopping at once, to recover at the next start: {}", error.message());
  std::_Exit(1);
}

}  // namespace offprint::database
