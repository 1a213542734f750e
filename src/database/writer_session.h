#pragma once

#include "database/recorder.h"
#include "database/session_base.h"

namespace offprint::database {

// A request on the writer connection. Shared: inside a transaction that other requests share; its
// own control statements are mapped to savepoints of ours and never stepped. Alone: plain SQL on
// the connection. The rules and the tests that prove them: docs/batching.md.
class WriterSession final : public SessionBase {
 public:
  enum class Mode { kShared, kAlone };
  // `recorder` decides the connection's commits.
  WriterSession(UserConnection& connection, Mode mode, TransactionRecorder& recorder);

  bool autocommit() const override;
  // A further request of the same open transaction.
  void resume() { lost_ = Lost::kNo; }
  // Ends the request: an open transaction is rolled back, unless it is to stay (then, when shared,
  // the request is lost: it must run alone), connection state that would leak is reset.
  void finish(bool keep_transaction);

 protected:
  Result<StatementResult> run(UserConnection::Lease& lease, RowSink& sink) override;
  bool is_committed_all_the_same() const override;

 private:
  Result<StatementResult> run_plain(PreparedStatement& prepared, RowSink& sink);
  Result<StatementResult> run_alone(PreparedStatement& prepared, RowSink& sink);
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
  SavepointStack savepoints_;
  bool defers_foreign_keys_ = false;
};

}  // namespace offprint::database
