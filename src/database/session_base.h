#pragma once

#include <optional>
#include <string>
#include <vector>

#include "database/session.h"
#include "database/user_connection.h"

namespace offprint::database {

// What readers' and writers' sessions have in common: running one prepared statement, the
// transaction control that a request sees, scripts and descriptions.
class SessionBase : public Session {
 public:
  enum class Lost {
    kNo,
    kTransactionGone,  // SQLite ended the whole shared transaction: the request runs again, alone
    kMustRunAlone,     // VACUUM, or a transaction that is to stay open
    kNeedsWriter,      // a reader was asked to write
    kTooLong,          // over what the caller's thread may spend
    kTimedOut,         // the request's deadline ended the shared transaction: its answer is that
  };

  Result<StatementResult> execute(const SqlStatement& statement, RowSink& sink) final;
  Result<StatementResult> execute_next(Script& script, RowSink& sink) final;
  Result<> execute_script(std::string_view sql) final;
  Result<Description> describe(std::string_view sql) final;
  bool lost() const final { return lost_ != Lost::kNo; }
  // Of the request that runs next, which must outlive its run; null: everything.
  void set_rights(const SqlRights* rights) { rights_ = rights; }
  Lost lost_reason() const { return lost_; }

 protected:
  explicit SessionBase(UserConnection& connection) : connection_(connection) {}

  // From now on the schema stays as it is, until the statement that comes next has ended.
  virtual Result<> pin_schema() { return {}; }
  // The deadline passed while a statement was compiled or checked.
  virtual std::unexpected<Error> out_of_time();
  // Runs a statement that is ready (bound); `lease` is reset afterwards.
  virtual Result<StatementResult> run(UserConnection::Lease& lease, RowSink& sink) = 0;
  // SQLite failed the statement, but what it did is committed.
  virtual bool is_committed_all_the_same() const { return false; }

  // Steps to the end, giving rows to the sink. The statement is reset, its result is what it did.
  Result<StatementResult> drive(PreparedStatement& prepared, RowSink& sink);
  std::unexpected<Error> lose(Lost reason);

  UserConnection& connection_;
  Lost lost_ = Lost::kNo;

 private:
  Result<UserConnection::Lease> prepare(std::string_view sql, std::string_view* rest = nullptr);
  Result<StatementResult> run_metered(UserConnection::Lease& lease, std::string_view sql,
                                      RowSink& sink);

  const SqlRights* rights_ = nullptr;
};

// The names of a request's open savepoints, innermost last. Matching ignores case, as SQLite does.
class SavepointStack {
 public:
  void push(std::string name) { names_.push_back(std::move(name)); }
  std::optional<std::size_t> find(std::string_view name) const;
  void cut(std::size_t size) { names_.resize(size); }
  std::size_t size() const { return names_.size(); }

 private:
  std::vector<std::string> names_;
};

// The messages that SQLite gives for transaction control out of place.
std::unexpected<Error> no_transaction(StatementKind kind);
std::unexpected<Error> nested_transaction();
std::unexpected<Error> no_such_savepoint(std::string_view name);

}  // namespace offprint::database
