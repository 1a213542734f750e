#include "database/writer_session.h"

#include <utility>

#include <fmt/format.h>

#include "sqlite/unused_bytes.h"

namespace offprint::database {
namespace {

// Names with a control byte: only ours ever reach SQLite, so they cannot meet a user's.
constexpr char kSavepointTransaction[] = "SAVEPOINT \"\x01t\"";
constexpr char kReleaseTransaction[] = "RELEASE \"\x01t\"";
constexpr char kUndoTransaction[] = "ROLLBACK TO \"\x01t\"; RELEASE \"\x01t\"";
constexpr char kSavepointStatement[] = "SAVEPOINT \"\x01s\"";
constexpr char kReleaseStatement[] = "RELEASE \"\x01s\"";
constexpr char kUndoStatement[] = "ROLLBACK TO \"\x01s\"; RELEASE \"\x01s\"";

std::string numbered(std::string_view verb, std::size_t depth) {
  return fmt::format("{} \"\x01{}\"", verb, depth);
}

std::unexpected<Error> foreign_key_failed() {
  return fail(Code::kSql, "FOREIGN KEY constraint failed", SQLITE_CONSTRAINT_FOREIGNKEY);
}

// Of a database whose connection overwrites what is deleted; as OpenFiles::commit() does.
Result<> clear_unused_bytes(UserConnection& writer) {
  return writer.internally([](sqlite::Connection& connection) -> Result<> {
    OFFPRINT_TRY_ASSIGN(auto overwrites, connection.query_int("PRAGMA secure_delete"));
    if (overwrites == 0) return {};
    OFFPRINT_TRY_ASSIGN(auto unused, sqlite::UnusedBytes::open(connection));
    return unused.clear();
  });
}

}  // namespace

WriterSession::WriterSession(UserConnection& connection, Mode mode, TransactionRecorder& recorder,
                             const SchemaCheck& schema_check)
    : SessionBase(connection), mode_(mode), recorder_(recorder), schema_check_(schema_check) {
  connection.forget_changes();
}

bool WriterSession::autocommit() const {
  return mode_ == Mode::kShared ? !in_transaction_ : connection_.autocommit();
}

Result<StatementResult> WriterSession::run(UserConnection::Lease& lease, RowSink& sink) {
  PreparedStatement& prepared = *lease.operator->();
  // No row was changed by this request: changes() may still tell of another one's.
  if (prepared.reads_change_counters && connection_.changed_rows() == 0)
    connection_.reset_changes();
  bool is_control =
      prepared.kind != StatementKind::kPlain && prepared.kind != StatementKind::kVacuum;
  if (connection_.limits().writes_blocked && !prepared.read_only && !is_control)
    return fail(blocked_error(connection_.limits().block_reason, "only read"));
  if (mode_ == Mode::kAlone) return run_alone(prepared, sink);
  if (is_guarded_change(prepared)) return lose(Lost::kMustRunAlone);
  if (prepared.sets_foreign_keys && !in_transaction_ &&
      *prepared.sets_foreign_keys != connection_.foreign_keys()) {
    return lose(Lost::kMustRunAlone);
  }
  switch (prepared.kind) {
    case StatementKind::kPlain:
      return run_plain(prepared, sink);
    case StatementKind::kVacuum:
      if (!in_transaction_) return lose(Lost::kMustRunAlone);
      return fail(Code::kSql, "cannot VACUUM from within a transaction", SQLITE_ERROR);
    default:
      sink.columns(prepared.statement);
      return control(prepared);
  }
}

Result<StatementResult> WriterSession::run_plain(PreparedStatement& prepared, RowSink& sink) {
  bool returns_rows = !prepared.read_only && prepared.statement.column_count() > 0;
  const std::int64_t rows_before = connection_.changed_rows();
  auto result = returns_rows ? run_with_savepoint(prepared, sink) : drive(prepared, sink);
  if (!prepared.read_only && (result || connection_.changed_rows() != rows_before))
    (in_transaction_ ? wrote_in_transaction_ : wrote_) = true;
  if (connection_.autocommit()) {
    if (!result) why_lost_ = result.error();
    return lose(connection_.timed_out() ? Lost::kTimedOut : Lost::kTransactionGone);
  }
  OFFPRINT_TRY(statement_ended(prepared.sets_defer_foreign_keys));
  return result;
}

// A write that also returns rows is undone when the rows cannot be taken.
Result<StatementResult> WriterSession::run_with_savepoint(PreparedStatement& prepared,
                                                          RowSink& sink) {
  OFFPRINT_TRY(run_internal(kSavepointStatement));
  auto result = drive(prepared, sink);
  if (connection_.autocommit()) return result;
  bool refused_by_sink = !result && result.error().sqlite_code() == 0;
  OFFPRINT_TRY(run_internal(refused_by_sink ? kUndoStatement : kReleaseStatement));
  return result;
}

Result<StatementResult> WriterSession::run_alone(PreparedStatement& prepared, RowSink& sink) {
  // SQLite refuses it too, but not before it has begun to write: SAVEPOINT a; BEGIN IMMEDIATE;
  // ROLLBACK TO a as a connection's first statements make it take the database for an empty one.
  if (prepared.kind == StatementKind::kBegin && !connection_.autocommit())
    return nested_transaction();
  if (prepared.sets_foreign_keys && connection_.autocommit())
    connection_.set_foreign_keys(*prepared.sets_foreign_keys);
  const bool is_guarded = is_guarded_change(prepared);
  if (is_guarded && connection_.autocommit()) return run_schema_change(prepared, sink);
  if (is_guarded && !std::exchange(schema_changed_, true))
    broken_ = schema_check_.broken(connection_);
  if (schema_changed_ && !may_break_ && ends_transaction(prepared))
    OFFPRINT_TRY(schema_check_.run(connection_, broken_));
  if (ends_transaction(prepared)) OFFPRINT_TRY(clear_unused_bytes(connection_));
  if (prepared.kind == StatementKind::kSavepoint && connection_.autocommit())
    began_as_ = prepared.savepoint;
  txid_before_ = recorder_.state().position.txid;
  connection_.policy().set_vacuuming(prepared.kind == StatementKind::kVacuum);
  auto result = drive(prepared, sink);
  connection_.policy().set_vacuuming(false);
  if (connection_.autocommit()) {
    schema_changed_ = false;
    began_as_.reset();
  }
  if (prepared.sets_defer_foreign_keys) defers_foreign_keys_ = true;
  if (!result && result.error().sqlite_code() == SQLITE_IOERR_FSYNC) {
    if (auto why = recorder_.take_error()) return fail(*std::move(why));
  }
  return result;
}

bool WriterSession::is_guarded_change(const PreparedStatement& prepared) const {
  return prepared.kind == StatementKind::kPlain && prepared.needs.has_any(kSchemaWrites) &&
         schema_check_.is_on();
}

bool WriterSession::ends_transaction(const PreparedStatement& prepared) const {
  if (prepared.kind == StatementKind::kCommit) return true;
  return prepared.kind == StatementKind::kRelease && began_as_ &&
         sqlite3_stricmp(began_as_->c_str(), prepared.savepoint.c_str()) == 0;
}

Result<StatementResult> WriterSession::run_schema_change(PreparedStatement& prepared,
                                                         RowSink& sink) {
  txid_before_ = recorder_.state().position.txid;
  OFFPRINT_TRY(run_internal("BEGIN IMMEDIATE"));
  const auto broken = may_break_ ? std::vector<std::string>() : schema_check_.broken(connection_);
  auto changed = [&]() -> Result<StatementResult> {
    OFFPRINT_TRY_ASSIGN(auto result, drive(prepared, sink));
    if (!may_break_) OFFPRINT_TRY(schema_check_.run(connection_, broken));
    if (auto committed = run_internal("COMMIT"); !committed) {
      if (auto why = recorder_.take_error()) return fail(*std::move(why));
      return fail(std::move(committed).error());
    }
    return result;
  }();
  if (!connection_.autocommit()) (void)connection_.run_internal("ROLLBACK");
  return changed;
}

// Its transaction is durable, and only the -wal could not be completed: the files are recovered
// from the journal, and the transaction stands.
bool WriterSession::is_committed_all_the_same() const {
  return mode_ == Mode::kAlone && recorder_.broken_error() &&
         recorder_.state().position.txid != txid_before_;
}

// After an autocommit statement nothing may be left over for the next request: no violation of a
// deferred key (then the statement runs again alone, where SQLite refuses it), no
// defer_foreign_keys.
Result<> WriterSession::statement_ended(bool sets_defer) {
  if (in_transaction_) {
    defers_foreign_keys_ = defers_foreign_keys_ || sets_defer;
    return {};
  }
  if (deferred_violation()) return lose(Lost::kTransactionGone);
  if (defers_foreign_keys_ && !sets_defer) reset_defer_foreign_keys();
  defers_foreign_keys_ = sets_defer;
  return {};
}

Result<StatementResult> WriterSession::control(const PreparedStatement& prepared) {
  Result<> done;
  switch (prepared.kind) {
    case StatementKind::kBegin:
      done = in_transaction_ ? Result<>(nested_transaction()) : begin(false);
      break;
    case StatementKind::kCommit:
      done = in_transaction_ ? commit() : Result<>(no_transaction(prepared.kind));
      break;
    case StatementKind::kRollback:
      done = in_transaction_ ? rollback() : Result<>(no_transaction(prepared.kind));
      break;
    case StatementKind::kSavepoint:
      done = savepoint(prepared.savepoint);
      break;
    case StatementKind::kRollbackTo:
      done = rollback_to(prepared.savepoint);
      break;
    default:
      done = release(prepared.savepoint);
      break;
  }
  if (!done) {
    // Outside a transaction stock SQLite forgets defer_foreign_keys with any statement that fails.
    if (!in_transaction_ && defers_foreign_keys_) reset_defer_foreign_keys();
    return fail(std::move(done).error());
  }
  StatementResult result;
  result.last_insert_rowid = sqlite3_last_insert_rowid(connection_.handle());
  return result;
}

Result<> WriterSession::begin(bool by_savepoint) {
  OFFPRINT_TRY(run_internal(kSavepointTransaction));
  in_transaction_ = true;
  wrote_in_transaction_ = false;
  opened_by_savepoint_ = by_savepoint;
  return {};
}

Result<> WriterSession::commit() {
  if (deferred_violation()) return foreign_key_failed();
  OFFPRINT_TRY(run_internal(kReleaseTransaction));
  in_transaction_ = false;
  wrote_ |= wrote_in_transaction_;
  savepoints_.cut(0);
  if (defers_foreign_keys_) reset_defer_foreign_keys();
  return {};
}

Result<> WriterSession::rollback() {
  OFFPRINT_TRY(run_internal(kUndoTransaction));
  in_transaction_ = false;
  wrote_in_transaction_ = false;
  savepoints_.cut(0);
  if (defers_foreign_keys_) reset_defer_foreign_keys();
  return {};
}

Result<> WriterSession::savepoint(const std::string& name) {
  if (!in_transaction_) OFFPRINT_TRY(begin(true));
  OFFPRINT_TRY(run_internal(numbered("SAVEPOINT", savepoints_.size()).c_str()));
  savepoints_.push(name);
  return {};
}

Result<> WriterSession::rollback_to(const std::string& name) {
  auto found = in_transaction_ ? savepoints_.find(name) : std::nullopt;
  if (!found) return no_such_savepoint(name);
  OFFPRINT_TRY(run_internal(numbered("ROLLBACK TO", *found).c_str()));
  savepoints_.cut(*found + 1);
  return {};
}

Result<> WriterSession::release(const std::string& name) {
  auto found = in_transaction_ ? savepoints_.find(name) : std::nullopt;
  if (!found) return no_such_savepoint(name);
  if (*found == 0 && opened_by_savepoint_) return commit();
  OFFPRINT_TRY(run_internal(numbered("RELEASE", *found).c_str()));
  savepoints_.cut(*found);
  return {};
}

void WriterSession::finish(bool keep_transaction) {
  if (mode_ == Mode::kAlone) {
    if (keep_transaction && !connection_.autocommit()) return;
    if (!connection_.autocommit()) (void)connection_.run_internal("ROLLBACK");
    if (defers_foreign_keys_) reset_defer_foreign_keys();
    connection_.reset_foreign_keys();
    return;
  }
  if (lost()) return;
  if (in_transaction_ && keep_transaction) {
    lost_ = Lost::kMustRunAlone;
    return;
  }
  if (in_transaction_ && !rollback()) lost_ = Lost::kTransactionGone;
  if (defers_foreign_keys_) reset_defer_foreign_keys();
}

bool WriterSession::deferred_violation() const {
  int current = 0;
  int highest = 0;
  sqlite3_db_status(connection_.handle(), SQLITE_DBSTATUS_DEFERRED_FKS, &current, &highest, 0);
  return current != 0;
}

void WriterSession::reset_defer_foreign_keys() {
  (void)run_internal("PRAGMA defer_foreign_keys=OFF");
  defers_foreign_keys_ = false;
}

// A statement of ours. When it fails, nobody knows what it left of the shared transaction.
Result<> WriterSession::run_internal(const char* sql) {
  auto result = connection_.run_internal(sql);
  if (!result && mode_ == Mode::kShared) return lose(Lost::kTransactionGone);
  return result;
}

}  // namespace offprint::database
