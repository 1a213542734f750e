#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "database/request.h"

namespace offprint::database {

struct Description {
  struct Column {
    std::string name;
    std::optional<std::string> decltype_text;
  };
  std::vector<std::optional<std::string>> parameters;  // names with their prefix; nothing for "?"
  std::vector<Column> columns;
  bool is_explain = false;
  bool is_read_only = false;
};

// How a request executes SQL: its own view of a connection that it may share with others. BEGIN,
// COMMIT, SAVEPOINT and their like work as on a connection of its own (they are mapped, never
// stepped as they are: docs/batching.md). Thread: the one that called Request::run, during that
// call.
class Session {
 public:
  virtual ~Session() = default;

  // Runs exactly one statement (kInvalid "SQL_NO_STATEMENT"/"SQL_MANY_STATEMENTS" otherwise;
  // trailing semicolons, blanks and comments are no second one). Errors of SQLite: Code::kSql with
  // the extended code; refused by policy: kForbidden; deadline: kTimeout.
  virtual Result<StatementResult> execute(const SqlStatement& statement, RowSink& sink) = 0;
  // Runs the first statement of `script`, which takes as many arguments as it has parameters, and
  // leaves in `script` what follows it. Text without a statement: nothing runs, `sink` is not
  // called, and the script becomes empty. kInvalid "ARGS_INVALID" when too few arguments are left;
  // too many are the caller's to notice. A zero byte must follow the text, as in a std::string.
  virtual Result<StatementResult> execute_next(Script& script, RowSink& sink) = 0;
  // Runs all statements of a text, dropping rows; stops at the first error. A zero
  // byte must follow the text.
  virtual Result<> execute_script(std::string_view sql) = 0;
  // Parameters and columns of one statement, without running it.
  virtual Result<Description> describe(std::string_view sql) = 0;
  // No transaction of this request is open.
  virtual bool autocommit() const = 0;
  // The shared transaction is gone, or this session cannot do what was asked (a write on a reader):
  // return from run(), it will be called again.
  virtual bool lost() const = 0;
};

}  // namespace offprint::database
