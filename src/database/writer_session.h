#pragma once

#include <optional>
#include <string>

#include "database/recorder.h"
#include "database/schema_check.h"
#include "database/session_base.h"

namespace offprint::database {

// A request on the writer connection. Shared: inside a transaction that other requests share; its
// own control statements are mapped to savepoints of ours and never stepped. Alone: plain SQL on
// the connection. The rules and the tests that prove them: docs/batching.md.
class WriterSession final : public SessionBase {
 public:
  enum class Mode { kShared, kAlone };
  // `recorder` decides the connection's commits.
  WriterSession(UserConnection& connection, Mode mode, TransactionRecorder& recorder,
                const SchemaCheck& schema_check);

  bool autocommit() const override;
  // A further request of the same open transaction.
  void resume() { lost_ = Lost::kNo; }
  // Whether the request may change the schema whatever relies on it.
  void set_may_break(bool may_break) { may_break_ = may_break; }
  // What it did so far, and did not undo, is more than reading. When shared.
  bool wrote() const { return wrote_; }
  // Why SQLite ended the shared transaction, or what this session cannot do when shared.
  const std::optional<Error>& why_lost() const { return why_lost_; }
  // Ends the request: an open transaction is rolled back, unless it is to stay (then, when shared,
  // the request is lost: it must run alone), connection state that would leak is reset.
  void finish(bool keep_transaction);

 protected:
  Result<StatementResult> run(UserConnection::Lease& lease, RowSink& sink) override;
  bool is_committed_all_the_same() const override;

 private:
  Result<StatementResult> run_plain(PreparedStatement& prepared, RowSink& sink);
  Result<StatementResult> run_alone(PreparedStatement& prepared, RowSink& sink);
  // A statement that changes the schema, and is a transaction of its own.
  Result<StatementResult> run_schema_change(PreparedStatement& prepared, RowSink& sink);
  bool is_guarded_change(const PreparedStatement& prepared) const;
  bool ends_transaction(const PreparedStatement& prepared) const;
  Result<StatementResult> run_with_savepoint(PreparedStatement& prepared, RowSink& sink);
  Result<StatementResult> control(const PreparedStatement& prepared);
  Result<> begin(bool by_savepoint);
  Result<> commit();
  Result<> rollback();
  Result<> savepoint(const std::string& name);
  Result<> rollback_to(const std::string& name);
  Result<> release(const std::string& name);
  Result<> statement_ended(bool sets_defer);
  bool deferred_violation() const;
  void reset_defer_foreign_keys();
  Result<> run_internal(const char* sql);

  Mode mode_;
  TransactionRecorder& recorder_;
  TxId txid_before_;             // when the statement began
  bool in_transaction_ = false;  // of this request, when shared
  bool opened_by_savepoint_ = false;
  bool wrote_ = false;
  bool wrote_in_transaction_ = false;
  std::optional<Error> why_lost_;
  SavepointStack savepoints_;
  bool defers_foreign_keys_ = false;
  const SchemaCheck schema_check_;
  bool may_break_ = false;
  bool schema_changed_ = false;          // in the open transaction, when alone
  std::vector<std::string> broken_;      // what was broken before it did
  std::optional<std::string> began_as_;  // the savepoint that opened it, when alone
};

}  // namespace offprint::database
