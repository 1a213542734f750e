#include "database/schema_check.h"

#include "database/environment.h"
#include "database/user_connection.h"

namespace offprint::database {

bool SchemaCheck::is_on() const {
  auto guard = environment_.schema_guard();
  return guard && guard->guards(database_id_);
}

Result<> SchemaCheck::run(UserConnection& connection) const {
  auto guard = environment_.schema_guard();
  if (!guard) return {};
  return connection.internally(
      [&](sqlite::Connection& changed) { return guard->check(database_id_, changed); });
}

}  // namespace offprint::database
