#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "sqlite/connection.h"

namespace offprint::database {

struct SqlDumpOptions {
  bool schema = true;
  bool data = true;
  // Only these tables, with their indexes and triggers (views by their names too); empty: all.
  std::vector<std::string> tables;
  // BEGIN … COMMIT around it, and before that what counts on a new file only (page size, encoding).
  // Without it a loader that has its own transaction can run the text.
  bool transaction = true;
};

// A database as a script of SQL that makes an equal one, piece by piece: tables, rows, indexes,
// views, virtual tables with their content, triggers, so that it loads with foreign keys on or off
// and fires nothing. One INSERT a row and line; rows keep their rowids. docs/sql.md, "Scripts".
// Memory: a piece and the largest row. Thread: one at a time. Blocks.
class SqlDump {
 public:
  // `db` must outlive it and be in a read transaction. kNotFound: one of `tables` is not there.
  static Result<std::unique_ptr<SqlDump>> start(sqlite::Connection& db,
                                                const SqlDumpOptions& options);
  // Appends at least `bytes` to `to`, and not much more. False: that was all.
  Result<bool> next(std::string& to, std::size_t bytes);

 private:
  friend class SqlDumpPlan;
  // Text as it is; with a query: the head of the INSERT that each row of it becomes.
  struct Step {
    std::string text;
    std::string query;
  };
  explicit SqlDump(sqlite::Connection& db) : db_(db) {}
  Result<> begin_row(std::string& to, const Step& step);
  // True: the value of column_ is complete.
  bool write_value(std::string& to);
  bool write_text(std::string& to, std::string_view text);
  bool write_blob(std::string& to, ByteView blob);

  sqlite::Connection& db_;
  std::vector<Step> steps_;
  std::size_t at_ = 0;      // in steps_
  sqlite::Statement rows_;  // of the step at_
  int column_ = -1;         // of the current row, the next one to write; -1: between rows
  std::size_t offset_ = 0;  // in a long value
  std::string nul_mark_;    // stands for zero bytes of the current text
};

}  // namespace offprint::database
