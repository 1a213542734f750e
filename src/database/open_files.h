#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "database/recorder.h"
#include "database/request_keys.h"
#include "database/state.h"
#include "database/user_connection.h"
#include "sqlite/page_apply.h"
#include "sqlite/read_snapshot.h"
#include "sqlite/unused_bytes.h"

namespace offprint::database {

// The state that a reader's open read transaction sees.
struct SeenState {
  sqlite::ReadSnapshot snapshot;
  TxId txid;
};

// A reader's connection, lent to one request or one interactive transaction.
struct LentReader {
  std::unique_ptr<UserConnection> connection;
  std::optional<SeenState> seen;  // its read transaction is open
  std::uint64_t checkpoints = 0;  // how many there were when the transaction began, at least
};

// The connections of one open database. The writer and what belongs to it are used by whoever has
// the database's turn; readers are lent out.
class OpenFiles {
 public:
  struct Options {
    std::string path;
    const char* vfs = nullptr;
    std::uint64_t database_id = 0;
    Decider decider;  // of its transactions
    CreateOptions create;
    Watchdog* watchdog = nullptr;  // outlives the files
    bool secure_delete = false;    // what is deleted is overwritten, also in free pages
    bool is_copy = false;          // of another node's database: written by pages, not by SQL
    std::function<std::int64_t()> wall_clock_ms = unix_time_ms;  // of its transactions
    std::shared_ptr<StatementMeter> meter;                       // null: nothing is gathered
    RequestKeys::Limits keys{};
  };
  // Opens the file, making it when the database was never written.
  static Result<std::shared_ptr<OpenFiles>> open(const Options& options, const DatabaseState& state,
                                                 TransactionRecorder::Decided decided);

  // Of a copy there is no writer(), and applier() instead.
  UserConnection& writer() { return *writer_; }
  sqlite::PageApplier& applier() { return *applier_; }
  TransactionRecorder& recorder() { return *recorder_; }
  RequestKeys& keys() { return *keys_; }
  // That its transactions are decided in.
  Epoch term() const { return options_.decider.term; }
  Result<> begin();
  Result<> commit();
  void rollback();

  // A reader whose read transaction, if one is open, sees the newest state.
  Result<LentReader> take_reader();
  // Its transaction stays open for the next request when the state that it sees is known.
  void give_reader(LentReader reader);

  // Moves what can be moved of the -wal into the file, fsynced. One at a time. `insist`: writers
  // wait meanwhile, and it waits a little for readers, so that the -wal can start again.
  Result<sqlite::CheckpointResult> checkpoint(bool insist);

 private:
  explicit OpenFiles(Options options) : options_(std::move(options)) {}
  static Result<> enter_wal_mode(const Options& options, bool create);
  Result<> open_writer();
  static void end_snapshot(LentReader& reader);
  void end_free_snapshots(bool checkpointing);

  const Options options_;
  std::mutex mutex_;
  std::vector<LentReader> free_readers_;  // guarded by mutex_
  std::uint64_t checkpoints_ = 0;         // begun and ended ones; guarded by mutex_
  bool checkpointing_ = false;            // guarded by mutex_
  std::mutex checkpoint_mutex_;
  std::unique_ptr<PageReader> old_pages_;
  std::unique_ptr<TransactionRecorder> recorder_;  // outlives writer_, whose commits it decides
  std::unique_ptr<UserConnection> writer_;
  std::optional<RequestKeys> keys_;  // goes before writer_
  std::unique_ptr<sqlite::PageApplier> applier_;
  std::unique_ptr<sqlite::Connection> checkpointer_;
  std::optional<sqlite::UnusedBytes> unused_;  // set when what is deleted is overwritten
  sqlite::Statement begin_;
  sqlite::Statement commit_;
};

}  // namespace offprint::database
