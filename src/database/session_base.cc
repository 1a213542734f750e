#include "database/session_base.h"

#include <fmt/format.h>

#include "database/sql_text.h"

namespace offprint::database {
namespace {

class NullSink final : public RowSink {
 public:
  void columns(const sqlite::Statement&) override {}
  Result<> row(const sqlite::Statement&) override { return {}; }
};

std::uint64_t rows_read_estimate(sqlite3_stmt* statement) {
  return static_cast<std::uint64_t>(
      sqlite3_stmt_status(statement, SQLITE_STMTSTATUS_FULLSCAN_STEP, 1));
}

bool same_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() &&
         sqlite3_strnicmp(a.data(), b.data(), static_cast<int>(a.size())) == 0;
}

}  // namespace

std::optional<std::size_t> SavepointStack::find(std::string_view name) const {
  for (std::size_t i = names_.size(); i > 0; --i) {
    if (same_name(names_[i - 1], name)) return i - 1;
  }
  return std::nullopt;
}

std::unexpected<Error> no_transaction(StatementKind kind) {
  std::string_view what = kind == StatementKind::kCommit ? "commit" : "rollback";
  return fail(Code::kSql, fmt::format("cannot {} - no transaction is active", what), SQLITE_ERROR);
}
std::unexpected<Error> nested_transaction() {
  return fail(Code::kSql, "cannot start a transaction within a transaction", SQLITE_ERROR);
}
std::unexpected<Error> no_such_savepoint(std::string_view name) {
  return fail(Code::kSql, fmt::format("no such savepoint: {}", name), SQLITE_ERROR);
}

std::unexpected<Error> SessionBase::lose(Lost reason) {
  lost_ = reason;
  return fail(Code::kInternal, "the request runs again");
}

std::unexpected<Error> SessionBase::out_of_time() {
  return fail(connection_.error(SQLITE_INTERRUPT));
}

Result<UserConnection::Lease> SessionBase::prepare(std::string_view sql, std::string_view* rest) {
  if (rights_ != nullptr && rights_->needs_reach()) OFFPRINT_TRY(pin_schema());
  auto lease = connection_.prepare(sql, rest, rights_);
  if (!lease && connection_.timed_out()) return out_of_time();
  return lease;
}

Result<StatementResult> SessionBase::execute(const SqlStatement& statement, RowSink& sink) {
  if (lost()) return lose(lost_);
  OFFPRINT_TRY_ASSIGN(auto lease, prepare(statement.sql));
  OFFPRINT_TRY(bind_arguments(lease->statement, statement));
  return run_metered(lease, statement.sql, sink);
}

// And takes down what it cost.
Result<StatementResult> SessionBase::run_metered(UserConnection::Lease& lease, std::string_view sql,
                                                 RowSink& sink) {
  StatementMeter* meter = connection_.meter();
  if (meter == nullptr) return run(lease, sink);
  auto start = SteadyClock::now();
  auto result = run(lease, sink);
  if (lost()) return result;  // it runs again
  StatementSample sample;
  sample.time = SteadyClock::now() - start;
  sample.failed = !result;
  sample.is_control = lease->kind != StatementKind::kPlain && lease->kind != StatementKind::kVacuum;
  if (result) {
    sample.rows_read = result->rows_read;
    sample.rows_written = result->rows_written;
  }
  meter->record(sql, sample);
  return result;
}

Result<StatementResult> SessionBase::execute_next(Script& script, RowSink& sink) {
  if (lost()) return lose(lost_);
  std::string_view rest;
  OFFPRINT_TRY_ASSIGN(auto lease, connection_.prepare(script.sql, &rest));
  std::string_view text = script.sql.substr(0, script.sql.size() - rest.size());
  script.sql = rest;
  if (!lease->statement) return StatementResult();
  auto count = static_cast<std::size_t>(sqlite3_bind_parameter_count(lease->statement.handle()));
  if (count > script.args.size()) {
    return fail(Code::kInvalid,
                fmt::format("ARGS_INVALID: the statement has {} parameters, {} arguments are left",
                            count, script.args.size()));
  }
  for (std::size_t i = 0; i < count; ++i) {
    OFFPRINT_TRY(lease->statement.bind_value(static_cast<int>(i) + 1, script.args[i]));
  }
  script.args = script.args.subspan(count);
  return run_metered(lease, text, sink);
}

Result<> SessionBase::execute_script(std::string_view sql) {
  NullSink sink;
  while (!lost() && !skip_blanks(sql).empty()) {
    std::string_view rest;
    OFFPRINT_TRY_ASSIGN(auto lease, prepare(sql, &rest));
    if (lease->statement)
      OFFPRINT_TRY(run_metered(lease, sql.substr(0, sql.size() - rest.size()), sink));
    sql = rest;
  }
  return {};
}

Result<Description> SessionBase::describe(std::string_view sql) {
  if (lost()) return lose(lost_);
  OFFPRINT_TRY_ASSIGN(auto lease, prepare(sql));
  sqlite3_stmt* statement = lease->statement.handle();
  Description description;
  for (int i = 1; i <= sqlite3_bind_parameter_count(statement); ++i) {
    const char* name = sqlite3_bind_parameter_name(statement, i);
    description.parameters.push_back(name == nullptr ? std::nullopt
                                                     : std::optional<std::string>(name));
  }
  for (int i = 0; i < sqlite3_column_count(statement); ++i) {
    const char* type = sqlite3_column_decltype(statement, i);
    description.columns.push_back(
        {sqlite3_column_name(statement, i),
         type == nullptr ? std::nullopt : std::optional<std::string>(type)});
  }
  description.is_explain = sqlite3_stmt_isexplain(statement) != 0;
  description.is_read_only = lease->read_only;
  return description;
}

namespace {

// The time that one statement may take, within that of its request.
class StatementTime {
 public:
  StatementTime(UserConnection& connection, std::uint32_t limit_ms) : connection_(connection) {
    if (limit_ms == 0) return;
    before_ = connection.deadline();
    connection.set_deadline(
        std::min(*before_, SteadyClock::now() + std::chrono::milliseconds(limit_ms)));
  }
  ~StatementTime() {
    if (before_) connection_.set_deadline(*before_);
  }
  StatementTime(const StatementTime&) = delete;
  StatementTime& operator=(const StatementTime&) = delete;

 private:
  UserConnection& connection_;
  std::optional<Deadline> before_;
};

}  // namespace

Result<StatementResult> SessionBase::drive(PreparedStatement& prepared, RowSink& sink) {
  sqlite3* db = connection_.handle();
  sqlite3_stmt* statement = prepared.statement.handle();
  std::int64_t changes_before = sqlite3_total_changes64(db);
  StatementResult result;
  result.read_only = prepared.read_only;
  const DatabaseLimits& limits = connection_.limits();
  StatementTime time(connection_, limits.statement_ms_max);
  sink.columns(prepared.statement);
  std::optional<Error> refused;
  int code;
  while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
    if (prepared.is_changed()) {
      refused = Error(Code::kForbidden, "the schema changed while the statement was checked");
      break;
    }
    if (++result.rows_read > limits.rows_max && limits.rows_max != 0) {
      refused =
          Error(Code::kTooLarge, fmt::format("ROWS_LIMIT: the result has more than {} rows, the "
                                             "database's limit",
                                             limits.rows_max));
      break;
    }
    if (auto taken = sink.row(prepared.statement); !taken) {
      refused = std::move(taken).error();
      break;
    }
  }
  if (code != SQLITE_DONE && !refused && !is_committed_all_the_same()) {
    Error error = connection_.error(sqlite3_extended_errcode(db));
    sqlite3_reset(statement);
    return fail(std::move(error));
  }
  result.rows_read += rows_read_estimate(statement);
  sqlite3_reset(statement);
  if (refused) return fail(*std::move(refused));
  result.changes = sqlite3_total_changes64(db) - changes_before;
  result.rows_written = static_cast<std::uint64_t>(result.changes);
  result.last_insert_rowid = sqlite3_last_insert_rowid(db);
  return result;
}

}  // namespace offprint::database
