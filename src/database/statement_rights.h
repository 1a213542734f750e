#pragma once

#include "base/result.h"
#include "database/rights.h"

namespace offprint::database {

class UserConnection;
struct PreparedStatement;

// Whether somebody with these rights may run the statement that was prepared last on the
// connection. kForbidden says what is missing. When the rights don't include reading everything,
// it is also looked at which tables the compiled program opens: names alone don't tell (JOIN …
// USING reads columns that SQLite reports to nobody). docs/protocol/tokens.md, "How SQL is
// checked".
Result<> check_statement(const SqlRights& rights, UserConnection& connection,
                         PreparedStatement& prepared);

// The connection knows the schema as it is now; inside a transaction it stays so.
Result<> load_schema(UserConnection& connection);

}  // namespace offprint::database
