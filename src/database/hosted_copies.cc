// Copies of a hosted database: snapshots out of it, imports into it.
#include <climits>
#include <filesystem>

#include <fmt/format.h>

#include "database/hosted_database.h"
#include "database/recovery.h"
#include "database/statement_rights.h"
#include "database/user_connection.h"
#include "ltx/checksum.h"

namespace offprint::database {

// ------------------------------------------------------------------------------------------------------
// snapshot

class HostedSnapshot final : public Snapshot {
 public:
  HostedSnapshot(std::shared_ptr<OpenFiles> files, PageReader reader, const DatabaseState& state)
      : files_(std::move(files)), reader_(std::move(reader)), state_(state) {}
  ~HostedSnapshot() override { reader_.end(); }

  Position position() const override { return state_.position; }
  std::uint32_t page_size() const override { return state_.page_size; }
  std::uint32_t page_count() const override { return state_.page_count; }

  Result<ByteView> page(PageNo page) override {
    if (page == ltx::lock_page(state_.page_size)) {
      buffer_.assign(state_.page_size, 0);
      return ByteView(buffer_);
    }
    OFFPRINT_TRY_ASSIGN(ByteView image, reader_.page(page));
    if (page != 1) return image;
    buffer_.assign(image.begin(), image.end());
    std::copy(state_.header.begin(), state_.header.end(), buffer_.begin());
    return ByteView(buffer_);
  }

 private:
  std::shared_ptr<OpenFiles> files_;
  PageReader reader_;
  DatabaseState state_;
  Bytes buffer_;
};

Result<std::unique_ptr<Snapshot>> HostedDatabase::snapshot(bool for_node) {
  if (!for_node) {
    if (auto blocked = reads_blocked()) return fail(*std::move(blocked));
  }
  if (auto busy = exclusive()) return fail(*std::move(busy));  // its turn may be far off
  Result<std::unique_ptr<Snapshot>> result = fail(Code::kUnavailable, "not run");
  // At this database's turn no commit can come between the state and the read transaction.
  run_task_and_wait([&] {
    result = [&]() -> Result<std::unique_ptr<Snapshot>> {
      OFFPRINT_TRY_ASSIGN(auto files, open_files());
      OFFPRINT_TRY_ASSIGN(auto reader, PageReader::open(identity_.path, environment_.vfs.c_str()));
      OFFPRINT_TRY(reader.begin());
      DatabaseState state;
      {
        std::lock_guard lock(mutex_);
        state = state_;
        last_used_ = SteadyClock::now();
      }
      if (state.page_count > 0) OFFPRINT_TRY(reader.page(1));  // the read transaction begins here
      return std::make_unique<HostedSnapshot>(std::move(files), std::move(reader), state);
    }();
  });
  return result;
}

namespace {

class HostedSqlSnapshot final : public SqlSnapshot {
 public:
  HostedSqlSnapshot(std::weak_ptr<HostedDatabase> database, std::shared_ptr<OpenFiles> files,
                    std::unique_ptr<UserConnection> connection, const Bookmark& bookmark)
      : database_(std::move(database)),
        files_(std::move(files)),
        connection_(std::move(connection)),
        bookmark_(bookmark) {}

  Bookmark bookmark() const override {
    std::lock_guard lock(mutex_);
    return bookmark_;
  }
  Result<> with(const std::function<Result<>(sqlite::Connection&)>& work) override {
    return with_user([&](UserConnection& connection) {
      connection.policy().set_internal(true);
      // Values that SQLite's own limit let in are read, too.
      int length_max = sqlite3_limit(connection.handle(), SQLITE_LIMIT_LENGTH, INT_MAX);
      Result<> done = work(connection.connection());
      sqlite3_limit(connection.handle(), SQLITE_LIMIT_LENGTH, length_max);
      connection.policy().set_internal(false);
      return done;
    });
  }
  Result<> with_user(const std::function<Result<>(UserConnection&)>& work) override {
    std::lock_guard lock(mutex_);
    OFFPRINT_TRY(check_goes_on());
    return work(*connection_);
  }
  // At no turn: which state the new read transaction sees is told by the map of the -wal.
  Result<> renew() override {
    auto database = database_.lock();
    std::lock_guard lock(mutex_);
    OFFPRINT_TRY(check_goes_on());
    if (!database) return fail(Code::kUnavailable, "the database is closed");
    if (auto blocked = database->reads_blocked()) return fail(*std::move(blocked));
    let_go();
    OFFPRINT_TRY(connection_->run_internal("BEGIN"));
    OFFPRINT_TRY(load_schema(*connection_));
    OFFPRINT_TRY_ASSIGN(auto seen, sqlite::ReadSnapshot::of(connection_->connection()));
    OFFPRINT_TRY_ASSIGN(bookmark_, database->bookmark_of(seen.point()));
    return {};
  }
  void end() {
    std::lock_guard lock(mutex_);
    ended_ = true;
    let_go();
  }

 private:
  Result<> check_goes_on() const {
    if (!ended_) return {};
    return fail(Code::kTimeout,
                "COPY_TIMEOUT: the copy was not taken within its time limit, and has ended");
  }
  // Statements that are still held must not keep the read transaction open.
  void let_go() {
    sqlite3* db = connection_->handle();
    for (sqlite3_stmt* each = sqlite3_next_stmt(db, nullptr); each != nullptr;
         each = sqlite3_next_stmt(db, each))
      sqlite3_reset(each);
    if (!connection_->autocommit()) (void)connection_->run_internal("ROLLBACK");
  }

  const std::weak_ptr<HostedDatabase> database_;
  std::shared_ptr<OpenFiles> files_;
  mutable std::mutex mutex_;
  std::unique_ptr<UserConnection> connection_;  // guarded by mutex_
  bool ended_ = false;                          // guarded by mutex_
  Bookmark bookmark_;                           // guarded by mutex_
};

}  // namespace

Result<Bookmark> HostedDatabase::bookmark_of(const sqlite::WalPoint& point) {
  std::lock_guard lock(mutex_);
  auto txid = wal_map_.find(point);
  if (!txid) return fail(Code::kBehind, "the state of a read transaction is not known");
  if (*txid == state_.position.txid) return state_.position.bookmark();
  if (log_.empty() || *txid < log_.front().txid || *txid > log_.back().txid)
    return fail(Code::kBehind, "the log has forgotten the state of a read transaction");
  const LogEntry& entry = log_[txid->value - log_.front().txid.value];
  return Bookmark{entry.epoch, entry.txid, state_.position.lineage};
}

Result<std::shared_ptr<SqlSnapshot>> HostedDatabase::sql_snapshot() {
  if (auto blocked = reads_blocked()) return fail(*std::move(blocked));
  if (auto busy = exclusive()) return fail(*std::move(busy));
  Result<std::shared_ptr<HostedSqlSnapshot>> result = fail(Code::kUnavailable, "not run");
  run_task_and_wait([&] {
    result = [&]() -> Result<std::shared_ptr<HostedSqlSnapshot>> {
      OFFPRINT_TRY_ASSIGN(auto files, open_files());
      UserConnection::Options options;
      options.vfs = environment_.vfs.c_str();
      options.foreign_keys = identity_.options.foreign_keys;
      options.encoding = identity_.options.encoding;
      options.reads_only = true;
      options.watchdog = &environment_.watchdog;
      OFFPRINT_TRY_ASSIGN(auto connection, UserConnection::open(identity_.path, options));
      OFFPRINT_TRY(connection->run_internal("BEGIN"));
      // The read transaction begins here.
      OFFPRINT_TRY(load_schema(*connection));
      std::lock_guard lock(mutex_);
      last_used_ = SteadyClock::now();
      return std::make_shared<HostedSqlSnapshot>(weak_from_this(), std::move(files),
                                                 std::move(connection), state_.position.bookmark());
    }();
  });
  if (!result) return fail(std::move(result).error());
  environment_.timers.at(
      SteadyClock::now() + std::chrono::milliseconds(environment_.options.copy_timeout_ms),
      [environment = &environment_, weak = std::weak_ptr(*result)] {
        if (auto alive = weak.lock())
          environment->helpers.post([weak] {
            if (auto snapshot = weak.lock()) snapshot->end();
          });
      });
  return std::shared_ptr<SqlSnapshot>(*std::move(result));
}

// --------------------------------------------------------------------------------------------------------
// import

Result<Bookmark> HostedDatabase::import_file(const std::string& path) {
  Result<Bookmark> result = fail(Code::kUnavailable, "not run");
  run_task_and_wait([&] { result = import_at_turn(path); });
  return result;
}

namespace {

Result<> check_source(sqlite::Connection& source) {
  auto verdict = source.query_text("PRAGMA quick_check(1)");
  if (!verdict || *verdict != "ok") {
    return fail(Code::kInvalid, fmt::format("the file is no sound SQLite database: {}",
                                            verdict ? *verdict : verdict.error().message()));
  }
  return {};
}

Result<> copy_database(sqlite::Connection& source, sqlite::Connection& target) {
  sqlite3_backup* backup = sqlite3_backup_init(target.handle(), "main", source.handle(), "main");
  if (backup == nullptr)
    return fail(sqlite::sqlite_error(sqlite3_errcode(target.handle()), target.handle()));
  int stepped = sqlite3_backup_step(backup, -1);
  int finished = sqlite3_backup_finish(backup);
  if (stepped != SQLITE_DONE) return fail(sqlite::sqlite_error(stepped, target.handle()));
  if (finished != SQLITE_OK) return fail(sqlite::sqlite_error(finished, target.handle()));
  return {};
}

}  // namespace

Result<Bookmark> HostedDatabase::import_at_turn(const std::string& path) {
  if (has_primary_elsewhere()) return fail(read_only_error());
  {
    std::lock_guard lock(mutex_);
    if (refused_) return fail(*refused_);
    if (!tails_.empty())
      return fail(Code::kConflict,
                  fmt::format("database '{}' follows the file {}", identity_.name, tails_));
    if (state_.position.txid.value != 0) {
      return fail(Code::kConflict,
                  fmt::format("database '{}' is not empty; import into a new one", identity_.name));
    }
    if (limits_.reads_blocked || limits_.writes_blocked)
      return fail(blocked_error(limits_.block_reason, "not written"));
    std::error_code unknown;
    auto size = std::filesystem::file_size(path, unknown);
    if (!unknown && limits_.size_bytes_max != 0 && size > limits_.size_bytes_max)
      return fail(Code::kFull, "database or disk is full", SQLITE_FULL);
  }
  sqlite::Connection::Options options;
  options.read_only = true;
  OFFPRINT_TRY_ASSIGN(auto source, sqlite::Connection::open(path, options));
  OFFPRINT_TRY(check_source(source));
  OpenFiles::Options create;
  create.create = identity_.options;
  OFFPRINT_TRY_ASSIGN(auto page_size, source.query_int("PRAGMA page_size"));
  OFFPRINT_TRY_ASSIGN(auto auto_vacuum, source.query_int("PRAGMA auto_vacuum"));
  OFFPRINT_TRY_ASSIGN(create.create.encoding, source.query_text("PRAGMA encoding"));
  create.create.page_size = static_cast<std::uint32_t>(page_size);
  create.create.auto_vacuum = static_cast<int>(auto_vacuum);
  create.path = identity_.path;
  create.vfs = environment_.vfs.c_str();
  create.database_id = identity_.id;
  create.decider = decider();
  close_files();  // nothing was ever written: the file is made again with the source's page size
  OFFPRINT_TRY(remove_database_files(*environment_.options.files, identity_.path));
  DatabaseState empty;
  {
    std::lock_guard lock(mutex_);
    empty = state_;
    wal_map_.reset(TxId{0});
  }
  OFFPRINT_TRY_ASSIGN(
      auto files,
      OpenFiles::open(create, empty,
                      [this](const DatabaseState& next, const sqlite::WalPoint& point,
                             const LogEntry& entry) { on_decided(next, point, entry); }));
  auto copied = copy_database(source, files->writer().connection());
  if (auto error = files->recorder().journal_error()) environment_.fatal(*error);
  auto why = files->recorder().take_error();
  bool decided = files->recorder().state().position.txid.value != 0;
  needs_recovery_ = files->recorder().broken_error().has_value();
  files.reset();  // connections of other users start from the new schema
  if (!copied && !decided) return fail(why ? *why : copied.error());
  became_visible();
  return bookmark();
}

}  // namespace offprint::database
