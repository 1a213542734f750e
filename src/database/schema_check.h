#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace offprint::database {

struct Environment;
class SchemaGuard;
class UserConnection;

// What Store::set_schema_guard has to say of one database. Thread: the one that has the database's
// turn.
class SchemaCheck {
 public:
  SchemaCheck(const Environment& environment, std::uint64_t database_id)
      : environment_(environment), database_id_(database_id) {}
  // Changes of the schema are to be checked.
  bool is_on() const;
  // Before a transaction changes the schema: what is broken already.
  std::vector<std::string> broken(UserConnection& connection) const;
  // Before the connection's transaction commits, which changed the schema.
  Result<> run(UserConnection& connection, const std::vector<std::string>& broken) const;

 private:
  const Environment& environment_;
  const std::uint64_t database_id_;
};

}  // namespace offprint::database
