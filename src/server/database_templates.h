#pragma once

#include <optional>
#include <string>

#include "database/store.h"
#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// What a new database begins with.
struct DatabaseTemplate {
  std::string schema;                       // a script
  std::string copy_of;                      // another database's name: it is forked …
  std::optional<database::Moment> at = {};  // … as it was then, or is
  bool from_archive = false;                // what the archive has under its name
  bool empty() const { return schema.empty() && copy_of.empty() && !from_archive; }
};

// Creates a database with content; it is there whole or not at all. kConflict: the name is taken.
// Blocks, as long as the content is large: not for helper threads.
Result<> create_from_template(Service& service, const database::DatabaseName& name,
                              const database::CreateOptions& options,
                              const DatabaseTemplate& content);

// A new database out of a moment of `from`, the newest one without it. Errors as above, and as
// Store::snapshot_at(). Blocks.
Result<> fork_database(Service& service, const database::DatabaseName& from,
                       const database::DatabaseName& to, const std::optional<database::Moment>& at);

}  // namespace offprint::server
