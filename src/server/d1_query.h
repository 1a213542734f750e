#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "database/name.h"
#include "server/http_message.h"
#include "server/service.h"

// SQL in D1's form: what a Worker's binding or the REST interface asks for, run as one request.
// docs/protocol/d1.md.
namespace offprint::server::d1 {

inline constexpr std::string_view kSessionToken = "x-cf-d1-session-commit-token";

struct QueryList {
  std::vector<database::SqlStatement> queries;  // each may have several statements
  bool is_array = false;
};
// {"sql":"…","params":[…]}, or an array of those.
Result<QueryList> parse_binding_queries(std::string& body);
// {"sql":"…","params":[…]} or {"batch":[…]}.
Result<QueryList> parse_rest_queries(std::string& body);

struct RunOptions {
  enum class Rows { kObjects, kArrays };  // [{"a":1}] or {"columns":["a"],"rows":[[1]]}
  Rows rows = Rows::kObjects;
  bool result_for_each_statement = false;  // rather than for each text (of its last statement)
};

// What one statement, or all statements of one text, did.
struct QueryResult {
  std::string rows;  // JSON
  std::int64_t changes = 0;
  std::int64_t last_row_id = 0;
  std::uint64_t rows_read = 0;
  std::uint64_t rows_written = 0;
  bool changed_db = false;
  double duration_ms = 0;
};

struct Answer {
  std::vector<QueryResult> results;
  std::optional<Error> error;  // then nothing of the request happened
  Bookmark bookmark;
};

// Runs the queries as one transaction, all or nothing, and sends what `make_response` makes of the
// outcome, with the fields that every answer about a database has. Which copies may answer:
// x-cf-d1-session-commit-token of `request` ("first-primary", "first-unconstrained", a bookmark),
// without it as read_mode() says. Thread: a loop; `make_response` is called on any, and must be
// quick.
void run_queries(Service& service, const database::DatabaseName& name, const HttpRequest& request,
                 QueryList list, const RunOptions& options,
                 std::function<Response(Answer)> make_response, Responder responder);

// The size of a database in bytes; 0 when there is none. From memory.
std::uint64_t database_size(const Service& service, const database::DatabaseName& name);
// {"served_by":…,"duration":…,…}: D1's account of a result.
void append_meta(std::string& to, const Service& service, const database::DatabaseName& name,
                 const QueryResult& result, std::uint64_t size_after);
// SQLite's message and code as D1 joins them: "no such table: x: SQLITE_ERROR".
std::string error_message(const Error& error);

}  // namespace offprint::server::d1
