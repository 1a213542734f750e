#pragma once

#include <cstdint>
#include <memory>

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
  // Before the connection's transaction commits, which changed the schema.
  Result<> run(UserConnection& connection) const;

 private:
  const Environment& environment_;
  const std::uint64_t database_id_;
};

}  // namespace offprint::database
