#include "database/open_files.h"

#include <fmt/format.h>

namespace offprint::database {
namespace {

constexpr std::size_t kFreeReadersMax = 8;
constexpr int kInsistMs = 500;

}  // namespace

Result<> OpenFiles::enter_wal_mode(const Options& options, bool create) {
  sqlite::Connection::Options raw;
  raw.create = create;
  raw.vfs = options.vfs;
  raw.busy_timeout_ms = 5'000;
  OFFPRINT_TRY_ASSIGN(auto connection, sqlite::Connection::open(options.path, raw));
  // EXTRA: a power loss must not bring back the -journal that turned the file to WAL mode, SQLite
  // would play it back next to a -wal.
  OFFPRINT_TRY(connection.execute("PRAGMA synchronous=EXTRA"));
  if (create) {
    OFFPRINT_TRY(
        connection.execute(fmt::format("PRAGMA page_size={}; PRAGMA auto_vacuum={}",
                                       options.create.page_size, options.create.auto_vacuum)
                               .c_str()));
  }
  OFFPRINT_TRY_ASSIGN(std::string mode, connection.query_text("PRAGMA journal_mode=WAL"));
  if (mode != "wal")
    return fail(Code::kIo,
                fmt::format("{}: WAL mode is not possible here ({})", options.path, mode));
  return {};
}

Result<std::shared_ptr<OpenFiles>> OpenFiles::open(const Options& options,
                                                   const DatabaseState& state,
                                                   TransactionRecorder::Decided decided) {
  if (state.position.txid.value == 0) OFFPRINT_TRY(enter_wal_mode(options, true));
  std::shared_ptr<OpenFiles> files(new OpenFiles(options));
  OFFPRINT_TRY_ASSIGN(auto old_pages,
                      PageReader::open(options.path, options.vfs, options.create.encoding));
  files->old_pages_ = std::make_unique<PageReader>(std::move(old_pages));
  files->recorder_ = std::make_unique<TransactionRecorder>(
      TransactionRecorder::Options{options.database_id, options.decider, options.is_copy,
                                   options.wall_clock_ms},
      state, *files->old_pages_, std::move(decided));
  if (!options.is_copy) {
    OFFPRINT_TRY(files->open_writer());
    return files;
  }
  sqlite::PageApplier::Options apply;
  apply.sync_full = true;
  apply.vfs = options.vfs;
  apply.gate = files->recorder_.get();
  OFFPRINT_TRY_ASSIGN(files->applier_,
                      sqlite::PageApplier::open(options.path, state.page_size, apply));
  return files;
}

Result<> OpenFiles::open_writer() {
  UserConnection::Options user;
  user.vfs = options_.vfs;
  user.foreign_keys = options_.create.foreign_keys;
  user.encoding = options_.create.encoding;
  user.watchdog = options_.watchdog;
  user.meter = options_.meter;
  OFFPRINT_TRY_ASSIGN(writer_, UserConnection::open(options_.path, user));
  keys_.emplace(*writer_, options_.keys);
  if (options_.secure_delete) OFFPRINT_TRY(writer_->run_internal("PRAGMA secure_delete=ON"));
  OFFPRINT_TRY_ASSIGN(std::string mode, writer_->connection().query_text("PRAGMA journal_mode"));
  if (mode != "wal") {  // another program has left it
    OFFPRINT_TRY(enter_wal_mode(options_, false));
    OFFPRINT_TRY(writer_->run_internal("SELECT 1 FROM sqlite_schema LIMIT 1"));
  }
  OFFPRINT_TRY(sqlite::set_commit_gate(writer_->connection(), recorder_.get()));
  OFFPRINT_TRY_ASSIGN(begin_, writer_->prepare_internal("BEGIN IMMEDIATE"));
  OFFPRINT_TRY_ASSIGN(commit_, writer_->prepare_internal("COMMIT"));
  if (!options_.secure_delete) return {};
  return writer_->internally([this](sqlite::Connection& connection) -> Result<> {
    OFFPRINT_TRY_ASSIGN(unused_, sqlite::UnusedBytes::open(connection));
    return {};
  });
}

Result<> OpenFiles::commit() {
  if (unused_) OFFPRINT_TRY(writer_->internally([this](const auto&) { return unused_->clear(); }));
  return commit_.run();
}

Result<> OpenFiles::begin() {
  if (applier_) return applier_->begin();
  rollback();  // nothing, unless an earlier one failed
  return begin_.run();
}

void OpenFiles::rollback() {
  if (applier_) return applier_->rollback();
  if (!writer_->autocommit()) (void)writer_->run_internal("ROLLBACK");
}

Result<LentReader> OpenFiles::take_reader() {
  LentReader reader;
  {
    std::lock_guard lock(mutex_);
    if (!free_readers_.empty()) {
      reader = std::move(free_readers_.back());
      free_readers_.pop_back();
    }
    if (!reader.seen) reader.checkpoints = checkpoints_;
  }
  if (reader.connection) {
    if (reader.seen && !reader.seen->snapshot.is_newest()) {
      end_snapshot(reader);
      std::lock_guard lock(mutex_);
      reader.checkpoints = checkpoints_;
    }
    return reader;
  }
  UserConnection::Options user;
  user.vfs = options_.vfs;
  user.foreign_keys = options_.create.foreign_keys;
  user.encoding = options_.create.encoding;
  user.watchdog = options_.watchdog;
  user.meter = options_.meter;
  user.reads_only = true;
  OFFPRINT_TRY_ASSIGN(reader.connection, UserConnection::open(options_.path, user));
  return reader;
}

void OpenFiles::give_reader(LentReader reader) {
  reader.connection->set_deadline(Deadline::max());
  if (!reader.seen || reader.connection->autocommit()) end_snapshot(reader);
  std::lock_guard lock(mutex_);
  // A transaction from before a checkpoint would keep the -wal from starting again.
  if (checkpointing_ || reader.checkpoints != checkpoints_) end_snapshot(reader);
  if (free_readers_.size() < kFreeReadersMax) free_readers_.push_back(std::move(reader));
}

void OpenFiles::end_snapshot(LentReader& reader) {
  reader.seen.reset();
  if (!reader.connection->autocommit()) (void)reader.connection->run_internal("ROLLBACK");
}

void OpenFiles::end_free_snapshots(bool checkpointing) {
  std::lock_guard lock(mutex_);
  checkpointing_ = checkpointing;
  ++checkpoints_;
  for (LentReader& reader : free_readers_) end_snapshot(reader);
}

Result<sqlite::CheckpointResult> OpenFiles::checkpoint(bool insist) {
  std::lock_guard lock(checkpoint_mutex_);
  if (checkpointer_ == nullptr) {
    sqlite::Connection::Options raw;
    raw.vfs = options_.vfs;
    raw.busy_timeout_ms = kInsistMs;
    OFFPRINT_TRY_ASSIGN(auto connection, sqlite::Connection::open(options_.path, raw));
    OFFPRINT_TRY(connection.execute("PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=FULL"));
    checkpointer_ = std::make_unique<sqlite::Connection>(std::move(connection));
  }
  end_free_snapshots(true);  // they keep it from moving what is newer
  auto result = sqlite::checkpoint(*checkpointer_,
                                   insist ? SQLITE_CHECKPOINT_RESTART : SQLITE_CHECKPOINT_PASSIVE);
  end_free_snapshots(
      false);  // those that still need the -wal keep the writer from starting it again
  return result;
}

}  // namespace offprint::database
