#pragma once

#include <cstdio>
#include <future>
#include <memory>
#include <optional>
#include <string>

#include "database/session.h"
#include "database/sql_import.h"

// For sql_import.cc and row_import.cc: what imports have in common.
namespace offprint::database {

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using FileHandle = std::unique_ptr<std::FILE, CloseFile>;

inline Result<StatementResult> execute(Session& session, std::string sql) {
  SqlStatement statement;
  statement.sql = std::move(sql);
  DropRows rows;
  return session.execute(statement, rows);
}

// A file into a database that has content, as one transaction that nobody shares.
class ImportRequest : public Request {
 public:
  using Promise = std::promise<Result<ImportResult>>;

  // Both outlive it.
  ImportRequest(std::FILE* file, Promise& promise) : file_(file), promise_(promise) {}

  void run(Session& session) final {
    std::rewind(file_);
    result_ = {};
    failure_.reset();
    if (auto ran = import(session); !ran) failure_ = std::move(ran).error();
    if (failure_ && !session.autocommit()) (void)execute(session, "ROLLBACK");
  }
  void done(Outcome outcome) final {
    if (outcome.error) failure_ = std::move(outcome.error);
    result_.bookmark = outcome.bookmark;
    promise_.set_value(failure_ ? Result<ImportResult>(fail(*std::move(failure_))) : result_);
  }
  bool likely_read_only() const final { return false; }
  bool runs_alone() const final { return true; }

 protected:
  // From the file's beginning, perhaps more than once. Begins the transaction and commits it; after
  // an error it is rolled back.
  virtual Result<> import(Session& session) = 0;

  std::FILE* file() { return file_; }
  ImportResult& result() { return result_; }

 private:
  std::FILE* file_;
  Promise& promise_;
  ImportResult result_;
  std::optional<Error> failure_;
};

}  // namespace offprint::database
