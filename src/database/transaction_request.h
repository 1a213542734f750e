#pragma once

#include <functional>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include "database/session.h"

namespace offprint::database {

// Calls a function for each row.
class VisitRows final : public RowSink {
 public:
  explicit VisitRows(std::function<void(const sqlite::Statement&)> visit)
      : visit_(std::move(visit)) {}
  void columns(const sqlite::Statement&) override {}
  Result<> row(const sqlite::Statement& statement) override {
    visit_(statement);
    return {};
  }

 private:
  std::function<void(const sqlite::Statement&)> visit_;
};

// One statement of ours.
inline Result<StatementResult> execute(
    Session& session, std::string sql, std::vector<sqlite::Value> args = {},
    std::function<void(const sqlite::Statement&)> visit = [](const auto&) {}) {
  SqlStatement statement;
  statement.sql = std::move(sql);
  statement.args = std::move(args);
  VisitRows sink(std::move(visit));
  return session.execute(statement, sink);
}

// Runs a function as one transaction of a database: BEGIN before it, COMMIT after it, or ROLLBACK
// when it fails. The function may be called more than once, always from the start. Both must
// outlive the request; the promise gets the state after it.
class TransactionRequest final : public Request {
 public:
  using Work = std::function<Result<>(Session&)>;
  TransactionRequest(Work work, std::promise<Result<Bookmark>>& promise, bool only_reads = false)
      : work_(std::move(work)), promise_(promise), only_reads_(only_reads) {}

  void run(Session& session) override {
    result_ = [&]() -> Result<> {
      OFFPRINT_TRY(execute(session, "BEGIN"));
      auto worked = work_(session);
      if (session.lost()) return {};
      auto ended = execute(session, worked ? "COMMIT" : "ROLLBACK");
      if (worked && !ended) return fail(ended.error());
      return worked;
    }();
  }
  void done(Outcome outcome) override {
    if (outcome.error) return promise_.set_value(fail(*std::move(outcome.error)));
    if (!result_) return promise_.set_value(fail(std::move(result_).error()));
    promise_.set_value(outcome.bookmark);
  }
  bool likely_read_only() const override { return only_reads_; }

 private:
  const Work work_;
  std::promise<Result<Bookmark>>& promise_;
  const bool only_reads_;
  Result<> result_;
};

}  // namespace offprint::database
