#include "database/reader_session.h"

namespace offprint::database {

Result<StatementResult> ReaderSession::run(UserConnection::Lease& lease, RowSink& sink) {
  PreparedStatement& prepared = *lease.operator->();
  bool is_control =
      prepared.kind != StatementKind::kPlain && prepared.kind != StatementKind::kVacuum;
  if (is_control) {
    if (lease->kind == StatementKind::kBegin && !lease->read_only)
      return lose(Lost::kNeedsWriter);  // IMMEDIATE
    sink.columns(prepared.statement);
    return control(prepared);
  }
  if (!prepared.read_only || prepared.sets_pragma || prepared.sets_defer_foreign_keys ||
      prepared.kind == StatementKind::kVacuum) {
    return lose(Lost::kNeedsWriter);
  }
  if (prepared.may_take_long && is_slice_) return lose(Lost::kTooLong);
  OFFPRINT_TRY(pin_schema());
  auto result = drive(prepared, sink);
  if (!result && result.error().code() == Code::kTimeout && is_slice_) return lose(Lost::kTooLong);
  // A reading statement may write all the same: SELECT * FROM pragma_optimize.
  if (!result && (result.error().sqlite_code() & 0xff) == SQLITE_READONLY)
    return lose(Lost::kNeedsWriter);
  return result;
}

// Whatever follows sees one snapshot, from its first read on.
Result<> ReaderSession::pin_schema() {
  if (!connection_.autocommit()) return {};
  seen.reset();
  return connection_.run_internal("BEGIN");
}

std::unexpected<Error> ReaderSession::out_of_time() {
  if (is_slice_) return lose(Lost::kTooLong);
  return SessionBase::out_of_time();
}

Result<StatementResult> ReaderSession::control(const PreparedStatement& prepared) {
  switch (prepared.kind) {
    case StatementKind::kBegin:
      if (in_transaction_) return nested_transaction();
      in_transaction_ = true;
      opened_by_savepoint_ = false;
      break;
    case StatementKind::kCommit:
    case StatementKind::kRollback:
      if (!in_transaction_) return no_transaction(prepared.kind);
      in_transaction_ = false;
      savepoints_.cut(0);
      break;
    case StatementKind::kSavepoint:
      if (!in_transaction_) opened_by_savepoint_ = true;
      in_transaction_ = true;
      savepoints_.push(prepared.savepoint);
      break;
    default: {
      auto found = savepoints_.find(prepared.savepoint);
      if (!found) return no_such_savepoint(prepared.savepoint);
      bool rollback = prepared.kind == StatementKind::kRollbackTo;
      savepoints_.cut(rollback ? *found + 1 : *found);
      if (!rollback && *found == 0 && opened_by_savepoint_) in_transaction_ = false;
    }
  }
  return StatementResult{};
}

void ReaderSession::finish() {
  in_transaction_ = false;
  savepoints_.cut(0);
}

}  // namespace offprint::database
