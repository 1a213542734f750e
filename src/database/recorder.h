#pragma once

#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "database/commit_log.h"
#include "database/state.h"
#include "database/store.h"
#include "database/undo.h"
#include "journal/journal.h"
#include "sqlite/capture.h"

namespace offprint::database {

// Reads pages of a file as its newest visible transaction has them, through SQLite.
class PageReader {
 public:
  // `encoding`: of a database that has no tables yet.
  static Result<PageReader> open(const std::string& path, const char* vfs,
                                 const std::string& encoding = "UTF-8");
  // A read transaction: what follows sees one state until end().
  Result<> begin();
  void end();
  // Valid until the next call. kNotFound: no such page.
  Result<ByteView> page(PageNo page);
  sqlite::Connection& connection() { return connection_; }

 private:
  PageReader(sqlite::Connection connection, sqlite::Statement select)
      : connection_(std::move(connection)), select_(std::move(select)) {}
  sqlite::Connection connection_;
  sqlite::Statement select_;
};

// The rolling checksum of the file's content, by reading all of it; page 1 counts as `state` has
// its header. Begins a read transaction on `reader` unless there is one, and ends the one it began.
Result<Checksum> scan_checksum(PageReader& reader, const DatabaseState& state);

// Where the transactions of a database go, and until when.
struct Decider {
  journal::Journal* journal = nullptr;
  CommitLog* log = nullptr;
  Epoch term;
  Epoch least_epoch;                        // of the database's next transaction
  std::size_t payload_bytes_max = 1 << 20;  // larger ones go to files of their own
};

// Gives a record its place in the log. An error: it was not taken. kIo: the journal failed.
Result<CommitLog::Appended> place(const Decider& decider, journal::Draft draft);

// Turns what SQLite is about to commit into a transaction of the journal, and holds the commit back
// until that is durable. One for each open database. Thread: the one that runs the writer
// connection.
class TransactionRecorder final : public sqlite::CommitGate {
 public:
  // Told of each decided transaction, before SQLite publishes it.
  using Decided =
      std::function<void(const DatabaseState&, const sqlite::WalPoint&, const LogEntry&)>;

  struct Options {
    std::uint64_t database_id = 0;
    Decider decider;
    bool is_copy = false;  // of another node's database: only expected commits are taken
    std::function<std::int64_t()> wall_clock_ms = unix_time_ms;
  };
  TransactionRecorder(const Options& options, DatabaseState state, PageReader& old_pages,
                      Decided decided);

  // A transaction that is in the journal, durable.
  struct Decision {
    DatabaseState state;
    LogEntry entry;
    bool new_history = false;  // as UnappliedRecord has them
    bool whole = false;
  };
  // Of a copy: the next commit is these, oldest first.
  void expect(std::vector<Decision> decisions) { expected_ = std::move(decisions); }

  Result<> commit(sqlite::CapturedTransaction& transaction) override;
  Result<> foreign_commit(sqlite::CapturedTransaction* transaction) override;
  void broken(const Error& error) override;

  // Kept with the next transaction; see Request::source.
  void set_source(std::optional<Bookmark> source) { source_ = source; }
  // Refuses every further commit.
  void stop(const Error& why) { stopped_ = why; }
  // Why the last commit was refused; asking clears it.
  std::optional<Error> take_error();
  // The files cannot be used any more: recover from the journal.
  const std::optional<Error>& broken_error() const { return broken_; }
  // Another program changed the file in a way that cannot be told: no more writes.
  const std::optional<Error>& stopped_error() const { return stopped_; }
  // What decides failed or went elsewhere while a commit was being decided: nobody knows yet
  // whether it survives.
  bool outcome_unknown() const { return unknown_.has_value(); }
  // Of a request whose statements have their own answers: kUnknown, or as it is at first.
  Outcome outcome() const;
  // The journal failed for good (it was not merely full): the process has to stop and recover.
  const std::optional<Error>& journal_error() const { return journal_error_; }
  const DatabaseState& state() const { return state_; }

 private:
  class PageWalk;
  Result<> take_expected(const sqlite::WalPoint& point);
  Result<> record(sqlite::CapturedTransaction& transaction, bool is_foreign);
  Result<DatabaseState> encode(sqlite::CapturedTransaction& transaction, ltx::ByteSink& sink,
                               bool is_foreign);
  Result<> append(const DatabaseState& next, journal::Draft draft, const sqlite::WalPoint& point);
  Result<ByteView> old_image(PageNo page);
  void remember_fresh(std::uint32_t page_count);
  Checksum old_checksum(PageNo page, ByteView image) const;

  const Options options_;
  DatabaseState state_;
  PageReader& old_pages_;
  Decided decided_;
  // Checksums of pages as their last transaction carried them, and of the last few small
  // transactions their images: what is written often is not read again.
  std::unordered_map<PageNo, Checksum> known_;
  std::unordered_map<PageNo, Bytes> images_;
  std::vector<std::pair<PageNo, Checksum>> fresh_;
  std::vector<Bytes> fresh_images_;  // in the same order, or none
  std::optional<Bytes> undo_;        // of the transaction that is being recorded
  Bytes page_one_;
  std::vector<Decision> expected_;
  std::optional<Bookmark> source_;
  std::optional<Error> error_;
  std::optional<Error> broken_;
  std::optional<Error> stopped_;
  std::optional<Error> journal_error_;
  std::optional<Error> unknown_;  // why
};

}  // namespace offprint::database
