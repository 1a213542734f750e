#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "database/request.h"
#include "database/user_connection.h"

namespace offprint::database {

// A database's table of requests that came with a key, and what became of them. It is in the
// database's own file, so that it says of every state (a copy, a fork, what was restored) which
// requests are part of it. Made with the first of them. docs/format/request-keys.md.
inline constexpr std::string_view kRequestKeysTable = "sqlite_offprint_requests";

// Works on that table, in transactions of whoever uses the writer connection. Thread: one at a
// time, with the database's turn.
class RequestKeys {
 public:
  struct Limits {
    std::int64_t age_max_ms = 0;
    std::int64_t count_max = 0;
    std::size_t answer_bytes_max = 0;  // larger ones are not kept
  };
  // `writer` outlives it.
  RequestKeys(UserConnection& writer, const Limits& limits) : writer_(writer), limits_(limits) {}

  // Nothing: there was no such request. kInvalid "IDEMPOTENCY_KEY_REUSED": there was, and it asked
  // for something else. Others: the table cannot be read.
  Result<std::optional<KeptOutcome>> find(const RequestKey& key);
  // Adds one, and removes what is too old or too much; both are part of the open transaction. After
  // an error nobody knows what is left of that.
  Result<> add(const RequestKey& key, const KeptOutcome& outcome, std::int64_t now_ms);

 private:
  Result<bool> is_there();
  Result<> make_table();
  Result<> remove_old(std::int64_t newest, std::int64_t now_ms);
  Result<sqlite::Statement*> statement(sqlite::Statement& kept, const char* sql);

  UserConnection& writer_;
  const Limits limits_;
  sqlite::Statement look_, find_, add_, oldest_, remove_;
};

}  // namespace offprint::database
