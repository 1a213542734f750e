#include "replica/node_feed.h"

#include <utility>

#include <sqlite3.h>

namespace offprint::replica {

bool is_difference(const Error& error) {
  int damage = error.sqlite_code() & 0xff;
  return error.code() == Code::kBehind || error.code() == Code::kConflict ||
         error.code() == Code::kCorrupt || error.code() == Code::kNotFound ||
         damage == SQLITE_CORRUPT || damage == SQLITE_NOTADB;
}

Result<database::Revocation> take_revocation(const Frame& frame) {
  OFFPRINT_TRY_ASSIGN(StreamRevocation told, parse_revocation(frame.payload));
  database::Revocation revocation;
  revocation.token_id = std::move(told.token_id);
  revocation.database = std::move(told.database);
  (revocation.token_id.empty() ? revocation.not_before_s : revocation.until_s) = told.time_s;
  if (revocation.token_id.empty() == revocation.database.empty())
    return fail(Code::kCorrupt, "a revocation of nothing");
  return revocation;
}

}  // namespace offprint::replica
