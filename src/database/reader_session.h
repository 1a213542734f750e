#pragma once

#include "database/open_files.h"
#include "database/session_base.h"

namespace offprint::database {

// A request that only reads: all its statements see one snapshot of the database. Transaction
// control is followed, but means nothing beyond what autocommit() says. What is not reading makes
// it lost (kNeedsWriter).
class ReaderSession final : public SessionBase {
 public:
  explicit ReaderSession(UserConnection& connection) : SessionBase(connection) {}

  bool autocommit() const override { return !in_transaction_; }
  // A request continues on a transaction that an earlier one left open.
  void resume() { lost_ = Lost::kNo; }
  // The deadline that ended a statement was the caller's time slice, not the request's own.
  void set_time_slice(bool is_slice) { is_slice_ = is_slice; }
  // Ends the request's transaction. That of the connection stays: see OpenFiles::give_reader().
  void finish();
  // Which state its statements see, once known.
  std::optional<SeenState> seen;

 protected:
  Result<StatementResult> run(UserConnection::Lease& lease, RowSink& sink) override;
  Result<> pin_schema() override;
  std::unexpected<Error> out_of_time() override;

 private:
  Result<StatementResult> control(const PreparedStatement& prepared);

  bool in_transaction_ = false;
  bool opened_by_savepoint_ = false;
  SavepointStack savepoints_;
  bool is_slice_ = false;
};

}  // namespace offprint::database
