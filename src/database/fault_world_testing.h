#pragma once

#include <atomic>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/fault_file_system.h"
#include "database/fault_vfs_testing.h"
#include "database/session.h"
#include "database/store.h"
#include "database/testing.h"
#include "ltx/checksum.h"

// For tests only: a machine whose power fails, a store that runs on it, and what the store's
// clients were told, to be compared with what is there afterwards.
namespace offprint::database::testing {

// What is built wrongly on purpose, to see that the tests notice.
enum class Mutant {
  kNone,
  kCommitsNotSynced,      // acknowledged before the journal is on the disk
  kTailNotSynced,         // what a killed process left in the page cache is served as it is
  kCheckpointsNotSynced,  // the journal lets go of what the database file does not have yet
};

// One disk and the processes on it, one after the other. The store and SQLite use it through the
// FileSystem of this class.
class Machine final : public FileSystem {
 public:
  Machine() : disk_(std::make_unique<FaultFileSystem>()) { watch(); }
  ~Machine() override { FaultVfs::instance().use(nullptr); }

  Mutant mutant = Mutant::kNone;
  std::atomic<bool> starting{false};  // the store is being opened

  FaultFileSystem& disk() { return *disk_; }
  // Stops at the n-th change or sync from now on (0: the next): as seen from outside, nothing
  // happens after it.
  void stop_after(std::uint64_t n) { left_ = static_cast<std::int64_t>(n); }
  void never_stop() { left_ = INT64_MAX; }
  // Stops now, if it runs.
  void stop() {
    if (!stopped_.exchange(true)) remains_ = disk_->clone();
  }
  bool stopped() const { return stopped_; }
  // What is on the disk now; after a stop, at its moment.
  std::unique_ptr<FaultFileSystem> copy() const {
    return stopped_ ? remains_->clone() : disk_->clone();
  }

  // A new process finds what the old one left. Nothing of the old one may be open.
  void start_again() { start_again_with(remains_ ? std::move(remains_) : disk_->clone()); }
  // The same after a power loss: what was not synced is gone, or there in part.
  void lose_power(std::uint64_t seed) {
    auto left = remains_ ? std::move(remains_) : disk_->clone();
    left->power_loss(seed);
    start_again_with(std::move(left));
  }

  // --- FileSystem
  Result<std::unique_ptr<File>> open(const std::string& path, Mode mode) override {
    OFFPRINT_TRY_ASSIGN(auto file, disk_->open(path, mode));
    return std::make_unique<MachineFile>(*this, path, mode, std::move(file));
  }
  Result<> rename(const std::string& from, const std::string& to) override {
    return disk_->rename(from, to);
  }
  Result<> rename_new(const std::string& from, const std::string& to) override {
    return disk_->rename_new(from, to);
  }
  Result<> remove(const std::string& path) override { return disk_->remove(path); }
  Result<std::optional<FileStatus>> status(const std::string& path) override {
    return disk_->status(path);
  }
  Result<> set_modified(const std::string& path, std::int64_t modified_ms) override {
    return disk_->set_modified(path, modified_ms);
  }
  Result<bool> exists(const std::string& path) override { return disk_->exists(path); }
  Result<std::vector<std::string>> list(const std::string& directory) override {
    return disk_->list(directory);
  }
  Result<> create_directories(const std::string& directory) override {
    return disk_->create_directories(directory);
  }
  Result<> sync_directory(const std::string& directory) override {
    return disk_->sync_directory(directory);
  }

 private:
  class MachineFile final : public File {
   public:
    MachineFile(Machine& machine, std::string path, Mode mode, std::unique_ptr<File> file)
        : machine_(machine),
          path_(std::move(path)),
          is_new_(mode != Mode::kReadWrite),
          file_(std::move(file)) {}
    Result<std::size_t> read_at(std::uint64_t offset, std::span<std::uint8_t> to) override {
      return file_->read_at(offset, to);
    }
    Result<> write_at(std::uint64_t offset, ByteView bytes) override {
      return file_->write_at(offset, bytes);
    }
    Result<> sync() override {
      // The making of a file is always honest: the mutants are about its later life.
      bool journal = path_.find("/journal/") != std::string::npos;
      bool made = journal ? !std::exchange(is_new_, false) : !is_new_;
      if (made && machine_.lies_about(path_) && !machine_.stopped()) return {};
      return file_->sync();
    }
    Result<std::uint64_t> size() override { return file_->size(); }
    Result<> truncate(std::uint64_t size) override { return file_->truncate(size); }
    Result<> allocate(std::uint64_t size) override { return file_->allocate(size); }

   private:
    Machine& machine_;
    std::string path_;
    bool is_new_;
    std::unique_ptr<File> file_;
  };

  bool lies_about(const std::string& path) const {
    bool journal = path.find("/journal/") != std::string::npos && !path.contains("/large/");
    bool database = path.ends_with(".db");
    return (mutant == Mutant::kCommitsNotSynced && journal && !starting) ||
           (mutant == Mutant::kTailNotSynced && journal && starting) ||
           (mutant == Mutant::kCheckpointsNotSynced && database);
  }

  void watch() {
    never_stop();
    disk_->set_hook([this](const FaultFileSystem::Call& call) {
      using enum FaultFileSystem::Operation;
      if (stopped_) return EIO;
      bool changes = call.operation != kOpen && call.operation != kRead &&
                     call.operation != kSize && call.operation != kExists &&
                     call.operation != kList;
      if (changes) ++changes_;
      if (!changes || left_.fetch_sub(1) > 0 || stopped_.exchange(true)) return stopped_ ? EIO : 0;
      remains_ = disk_->clone();
      return EIO;
    });
    FaultVfs::instance().use(this);
  }

  void start_again_with(std::unique_ptr<FaultFileSystem> found) {
    FaultVfs::instance().use(nullptr);
    disk_ = std::move(found);
    disk_->set_capacity(UINT64_MAX);
    remains_.reset();
    stopped_ = false;
    watch();
  }

  std::unique_ptr<FaultFileSystem> disk_;
  std::unique_ptr<FaultFileSystem> remains_;  // after a stop
  std::atomic<bool> stopped_{false};
  std::atomic<std::int64_t> left_{INT64_MAX};

 public:
  std::atomic<std::uint64_t> changes_{0};  // changes and syncs so far
};

// What a client was told about one write.
enum class Told { kNothing, kDone, kRefused, kUnknown };
struct Write {
  Told told = Told::kNothing;
  std::uint64_t txid = 0;  // when done; 0: not known
};

// What became of one request.
struct Reply {
  Outcome outcome;
  bool succeeded = false;  // every statement
  std::string error;
  std::vector<std::string> rows;  // of all statements
  bool after_stop = false;        // nobody was there any more to hear it
};

// Runs statements until one fails, then rolls back.
class WorkRequest final : public Request {
 public:
  WorkRequest(const Machine& machine, std::vector<std::string> statements, bool keep)
      : machine_(machine), statements_(std::move(statements)), keep_(keep) {}
  std::future<Reply> future() { return promise_.get_future(); }

  void run(Session& session) override {
    reply_ = {};
    Sink sink(reply_.rows);
    for (const std::string& sql : statements_) {
      SqlStatement statement;
      statement.sql = sql;
      auto result = session.execute(statement, sink);
      if (session.lost()) return;
      if (result) continue;
      reply_.error = result.error().message();
      if (!session.autocommit()) {
        statement.sql = "ROLLBACK";
        (void)session.execute(statement, sink);
      }
      return;
    }
    reply_.succeeded = true;
  }
  void done(Outcome outcome) override {
    reply_.outcome = std::move(outcome);
    if (reply_.outcome.error) reply_.error = reply_.outcome.error->message();
    reply_.after_stop = machine_.stopped();
    promise_.set_value(std::move(reply_));
  }
  bool likely_read_only() const override {
    return std::all_of(statements_.begin(), statements_.end(), looks_read_only);
  }
  bool keep_transaction() const override { return keep_; }

 private:
  class Sink final : public RowSink {
   public:
    explicit Sink(std::vector<std::string>& rows) : rows_(rows) {}
    void columns(const sqlite::Statement&) override {}
    Result<> row(const sqlite::Statement& statement) override {
      rows_.emplace_back(statement.column_text(0));
      return {};
    }

   private:
    std::vector<std::string>& rows_;
  };

  const Machine& machine_;
  std::vector<std::string> statements_;
  bool keep_;
  Reply reply_;
  std::promise<Reply> promise_;
};

// Every write inserts a row into `log`; a trigger makes that row's details, in all `n` of `size`
// bytes, and removes those of its victim. So each write is there whole, or broken, or not at all.
inline std::vector<std::string> workload_schema() {
  return {"BEGIN",
          "CREATE TABLE numbers(i INTEGER PRIMARY KEY)",
          "INSERT INTO numbers WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c "
          "WHERE i < 200) SELECT i FROM c",
          "CREATE TABLE log(id INTEGER PRIMARY KEY, n, size, victim, removed_by)",
          "CREATE TABLE detail(id, i, data, PRIMARY KEY(id, i)) WITHOUT ROWID",
          "CREATE INDEX detail_data ON detail(substr(data, 1, 20))",
          "CREATE TRIGGER made AFTER INSERT ON log BEGIN"
          " INSERT INTO detail SELECT new.id, i, randomblob(new.size) FROM numbers WHERE i <= "
          "new.n;"
          " DELETE FROM detail WHERE id = new.victim;"
          " UPDATE log SET removed_by = new.id WHERE id = new.victim; END",
          "COMMIT"};
}
inline std::string write_sql(int id, int n, int size, int victim) {
  return fmt::format("INSERT INTO log(id, n, size, victim) VALUES({}, {}, {}, {})", id, n, size,
                     victim);
}
// Ids of writes that are not whole.
inline constexpr char kBrokenWrites[] =
    "SELECT 'write ' || id || ' is broken' FROM log WHERE (SELECT count(*) FROM detail WHERE "
    "detail.id = log.id AND length(data) = size) <> iif(removed_by IS NULL, n, 0)"
    " OR (removed_by IS NOT NULL AND removed_by NOT IN (SELECT id FROM log))";

// What a client knows of one database.
struct KnownDatabase {
  std::uint64_t id = 0;
  Lineage lineage;
  bool maybe_dropped = false;
  std::map<int, Write> writes;
  std::set<int> seen;  // returned by a read

  // What contradicts it in a state that holds these writes; `all`: everything done must be there.
  std::vector<std::string> contradictions(const std::set<int>& there, bool all) const {
    std::vector<std::string> found;
    std::uint64_t newest = all ? UINT64_MAX : 0;
    for (const auto& [number, write] : writes) {
      if (there.contains(number)) newest = std::max(newest, write.txid);
    }
    for (const auto& [number, write] : writes) {
      bool is_there = there.contains(number);
      if (write.told == Told::kRefused && is_there)
        found.push_back(fmt::format("write {} was refused, but is there", number));
      bool must = write.told == Told::kDone && (all || (write.txid != 0 && write.txid <= newest));
      if (must && !is_there)
        found.push_back(fmt::format("write {} (txid {}) was acknowledged, but is missing {}",
                                    number, write.txid,
                                    all ? "" : fmt::format("beside txid {}", newest)));
    }
    for (int number : seen) {
      if (all && !there.contains(number))
        found.push_back(fmt::format("write {} was read, but is missing", number));
    }
    for (int number : there) {
      if (!writes.contains(number)) found.push_back(fmt::format("write {} was invented", number));
    }
    return found;
  }
};

}  // namespace offprint::database::testing
