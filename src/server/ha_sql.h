#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "database/name.h"
#include "server/query.h"

namespace offprint::server {

// What the words of HA-SQLite before or instead of SQL ask for: docs/sql.md, "HA-SQLite".
struct HaWords {
  std::optional<database::DatabaseName> use;  // HA USE name: the statements are for this database
  std::optional<database::DatabaseName> create;  // HA CREATE DB name: and there is no statement
  struct Copy {
    database::DatabaseName name;
    std::string other;
  };
  std::optional<Copy> snapshot;  // HA SNAPSHOT name TO tag; the same
  std::optional<Copy> restore;   // HA RESTORE name FROM tag, moment or database; the same
};
// Takes such words, and the arguments that name databases, off a query. kInvalid: they are
// incomplete, or stand where they cannot.
Result<HaWords> take_ha_words(Query& query);

}  // namespace offprint::server
