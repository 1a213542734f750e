#include "database/schema_check.h"

#include "database/environment.h"
#include "database/user_connection.h"

namespace offprint::database {

bool SchemaCheck::is_on() const {
  auto guard = environment_.schema_guard();
  return guard && guard->guards(database_id_);
}

std::vector<std::string> SchemaCheck::broken(UserConnection& connection) const {
  std::vector<std::string> broken;
  if (auto guard = environment_.schema_guard()) {
    (void)connection.internally([&](sqlite::Connection& current) -> Result<> {
      broken = guard->broken(database_id_, current);
      return {};
    });
  }
  return broken;
}

Result<> SchemaCheck::run(UserConnection& connection,
                          const std::vector<std::string>& broken) const {
  auto guard = environment_.schema_guard();
  if (!guard) return {};
  return connection.internally(
      [&](sqlite::Connection& changed) { return guard->check(database_id_, changed, broken); });
}

}  // namespace offprint::database
