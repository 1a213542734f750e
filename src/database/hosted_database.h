#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <boost/container/deque.hpp>

#include "database/batch.h"
#include "database/environment.h"
#include "database/file_fingerprint.h"
#include "database/open_files.h"
#include "database/replication.h"
#include "database/state.h"
#include "database/store.h"
#include "database/subscribers.h"
#include "database/wal_map.h"

namespace offprint::database {

// Takes no memory while it was never used: there are many databases, and most do nothing.
template <class T>
using Deque = boost::container::deque<T>;

// Names that begin with it are of databases that are the state which a tag names (tags.h): nobody
// is told of them, and requests do not find them.
inline constexpr char kStateNames = '=';
inline bool is_state_name(std::string_view name) { return name.starts_with(kStateNames); }

// A transaction record that recovery may have to apply, and the newest txid in it.
struct UnappliedRecord {
  TxId txid;
  journal::Location location;
  bool new_history = false;  // it does not follow on what came before
  bool whole = false;        // it has all pages
};

class FormerPages;

// What the journal said about a database at start.
struct Replayed {
  DatabaseState state;
  TxId checkpointed;                         // in the file, fsynced
  Deque<LogEntry> log;                       // contiguous, newest last
  Deque<UnappliedRecord> unapplied;          // above `checkpointed`, oldest first
  journal::Lsn state_lsn;                    // of the newest record that carries the state
  std::optional<FileFingerprint> closed_as;  // the file when it was last closed in order
};

// One hosted database: its queue, its place in history, and its files while it is in use.
// Whoever holds its *turn* (one thread of the writer pool at a time) runs batches and changes
// files; everybody else gives it work. Thread: any.
class HostedDatabase : public std::enable_shared_from_this<HostedDatabase> {
 public:
  struct Identity {
    std::uint64_t id = 0;
    std::string name;
    CreateOptions options;
    std::int64_t created_at_ms = 0;
    std::string path;
    bool is_copy = false;                  // of another node's database, or of a program's own file
    std::vector<Bookmark> ancestors = {};  // see DatabaseInfo
  };
  HostedDatabase(Environment& environment, Identity identity, Replayed replayed);
  ~HostedDatabase();

  const Identity& identity() const { return identity_; }
  DatabaseInfo info();
  Bookmark bookmark();
  // Blocks until the archive has the transaction, if commits here wait for that (kUnknown: it did
  // not take it in time).
  Result<> wait_for_archive(const Bookmark& at);
  void set_limits(const DatabaseLimits& limits);
  // kConflict: it follows no file.
  Result<> set_tails(const std::string& path);

  void submit(std::unique_ptr<Request> request);
  void submit_held(const std::shared_ptr<HeldTransaction>& held, std::unique_ptr<Request> request);
  void release(const std::shared_ptr<HeldTransaction>& held);

  Position position();
  Result<Checksum> checksum_at(const Bookmark& bookmark);
  Result<std::vector<LogEntry>> log_after(const Bookmark& after, std::size_t limit);
  std::unique_ptr<Subscription> subscribe(std::function<void()> changed);
  Result<Bookmark> bookmark_at(std::int64_t time_ms);
  // `for_node`: of a database whose reads are blocked, too.
  Result<std::unique_ptr<Snapshot>> snapshot(bool for_node = false);
  Result<std::unique_ptr<Snapshot>> snapshot_at(const Bookmark& at);
  Result<Bookmark> rewrite(Snapshot& to);
  std::vector<LogEntry> log_before(std::optional<TxId> before, std::size_t limit);
  Result<TransactionDetails> details(const LogEntry& entry);
  // The state that a read transaction sees. kBehind: it is not known.
  Result<Bookmark> bookmark_of(const sqlite::WalPoint& point);
  // Why nothing is read, if it is so.
  std::optional<Error> reads_blocked();
  Result<std::shared_ptr<SqlSnapshot>> sql_snapshot();
  Result<Bookmark> import_file(const std::string& path);

  // Of a copy; see Store.
  void apply(std::vector<IncomingTransaction> transactions, std::function<void(Result<>)> done);
  // Or of a database that was never written, which begins with it. `timestamp_ms`: of that state;
  // nothing: now.
  Result<> begin_new_history(const NewHistory& history,
                             std::optional<std::int64_t> timestamp_ms = {});
  // --- in a cluster; see Store
  // `done`: it is so, at the turn.
  void lead(Epoch term, std::function<void()> done = [] {});
  void follow();
  // Oldest first; those that it has are passed over. `done`: they are visible, or why not.
  void take_decided(std::vector<TransactionRecorder::Decision> records,
                    std::function<void(Result<>)> done);

  // Never written, it takes over a file; see Store::adopt_file.
  Result<> adopt(const AdoptedFile& file);
  // Bookmarks beyond it are of another history, and the next transaction's epoch is later.
  void add_end(const EpochEnd& end);
  void set_ends(std::vector<EpochEnd> ends);
  // Never written, it stands elsewhere now.
  void move_unwritten(const Position& position);
  // It is to begin with content, or (false) without: until it has some, requests are refused.
  void set_begins_filled(bool filled) { begins_filled_ = filled; }
  bool is_being_filled();
  // Why nothing that needs the writer can begin now: a request that runs alone.
  std::optional<Error> exclusive();

  // Refuses further work, ends what is open, closes the files (checkpointed, unless the database is
  // dropped). Blocks.
  void shut_down(const Error& reason, bool dropped);

  // For journal upkeep. The oldest record that is still needed to recover the file or its state;
  // nothing: none is.
  std::optional<journal::Lsn> needed_from();
  // Log entries whose records stood before `lsn` are forgotten.
  void trim_log(journal::Lsn lsn);
  std::optional<LogEntry> oldest_log_entry();
  // Makes records before `lsn` unneeded: checkpoints and writes the state again. Blocks.
  void let_go_of(journal::Lsn lsn);
  // See Store::checkpoint.
  Result<> checkpoint_now();

 private:
  friend class HostedSnapshot;
  using Task = std::function<void()>;
  struct WaitingRequest {
    std::unique_ptr<Request> request;
    Deadline until;
  };
  enum class ReadResult { kDone, kNeedsWriter, kTooLong };

  // --- the turn
  void schedule(std::unique_lock<std::mutex>& lock);
  void take_turns();
  bool take_one_turn();
  void run_held(std::shared_ptr<HeldTransaction> held, std::unique_ptr<Request> request);
  void end_held(const std::shared_ptr<HeldTransaction>& held, const Error& reason,
                bool by_runner = false);
  void run_batch(std::vector<std::unique_ptr<Request>> requests);
  void refuse_others();
  void refuse_interactive(std::vector<std::unique_ptr<Request>>& requests);
  // Runs a task at this database's turn and waits for it.
  void run_task_and_wait(Task task);

  // --- files
  Result<std::shared_ptr<OpenFiles>> open_files();
  Result<bool> recover();
  Result<> check_for_foreign_change(OpenFiles& files, bool recovered);
  Error refuse_if_damaged(const Error& error);
  void stop_if_sync_failed(const Error& error);
  bool settle_files();
  struct RecordsToApply {
    std::vector<journal::Location> records;  // oldest first
    bool new_history = false;                // one of them begins one
    bool whole = false;                      // the first of them has all pages
  };
  RecordsToApply records_above_checkpoint();
  Result<> append_images_again();
  void close_files();
  void lose_files();
  void close_if_idle();
  void arm_idle_timer(Deadline when);
  void record_checkpoint(TxId covered, bool durable, bool closing = false);
  void start_checkpoint_if_due();
  struct CheckpointRun {
    bool durable = false;     // wait until the journal knows of it
    bool closing = false;     // the files are closed next, as they are
    bool may_insist = false;  // at this database's turn, nobody holds the write lock
  };
  bool checkpoint(const CheckpointRun& run);
  void on_decided(const DatabaseState& state, const sqlite::WalPoint& point, const LogEntry& entry);
  void became_visible();
  Result<Bookmark> import_at_turn(const std::string& path);

  // --- history
  bool is_shared(const Bookmark& bookmark) const;
  Result<Bookmark> rewrite_at_turn(Snapshot& to);
  // What is to be decided, and where it stands in the log.
  struct Taken {
    TransactionRecorder::Decision decision;
    CommitLog::Appended appended;
  };
  Result<TransactionRecorder::Decision> decide_rewrite(Snapshot& to, const DatabaseState& state);
  // Waits until it is decided.
  Result<TransactionRecorder::Decision> decide(journal::Draft draft, const DatabaseState& before,
                                               const DatabaseState& next);
  Decider decider();
  Result<Taken> take_place(journal::Draft draft, const DatabaseState& before,
                           const DatabaseState& next);

  // --- a copy
  Result<> apply_at_turn(std::vector<IncomingTransaction>& transactions);
  std::vector<TransactionRecorder::Decision> take_into_journal(
      std::vector<IncomingTransaction>& transactions, DatabaseState state,
      std::optional<Error>& failure);
  Result<TransactionRecorder::Decision> take_into_journal(IncomingTransaction& transaction,
                                                          const DatabaseState& state,
                                                          FormerPages& former);
  Result<> apply_to_file(std::vector<TransactionRecorder::Decision> decisions);
  Result<> bring_in(std::vector<TransactionRecorder::Decision> decisions, bool has_file);
  Result<> take_decided_at_turn(std::vector<TransactionRecorder::Decision> records);
  void change_role(const Task& flip);
  void note_decided(const TransactionRecorder::Decision& decision);
  Result<> begin_new_history_at_turn(const NewHistory& history, std::int64_t timestamp_ms);
  Result<> adopt_at_turn(const AdoptedFile& file);
  bool is_of_this_history(const Bookmark& bookmark) const;  // mutex_ held
  void answer_committed(std::vector<Answer> answers);
  void answer_read_only(Request& request);
  Error read_only_error();
  Error filling_error();
  bool is_copy() const { return identity_.is_copy || follows_; }
  // Another node knows more.
  bool has_primary_elsewhere() const { return is_copy() && identity_.options.tails.empty(); }

  // --- reads
  void wait_for_state(std::unique_ptr<Request> request);
  void wake_waiting();
  bool try_read(std::unique_ptr<Request>& request);
  ReadResult run_read(const std::shared_ptr<OpenFiles>& files, std::unique_ptr<Request>& request,
                      bool is_slice);
  void finish_read(const std::shared_ptr<OpenFiles>& files, std::unique_ptr<Request> request,
                   LentReader reader, std::unique_ptr<ReaderSession> session);
  void read_on_helper(std::shared_ptr<OpenFiles> files, std::unique_ptr<Request> request);
  void run_held_read(const std::shared_ptr<HeldTransaction>& held,
                     std::unique_ptr<Request> request);
  void note_snapshot(UserConnection& reader, ReaderSession& session);
  std::shared_ptr<HeldTransaction> hold(std::shared_ptr<OpenFiles> files,
                                        std::unique_ptr<WriterSession> writer,
                                        std::unique_ptr<UserConnection> connection,
                                        std::unique_ptr<ReaderSession> reader);
  void arm_held_timer(const std::shared_ptr<HeldTransaction>& held, Deadline when);
  void enqueue(std::unique_ptr<Request> request);
  void answer_error(Request& request, Error error);
  // Gives the connection what the limits are now.
  void apply_limits(UserConnection& connection);
  bool waits_for_archive();

  Environment& environment_;
  const Identity identity_;

  std::mutex mutex_;
  // --- guarded by mutex_
  Deque<std::unique_ptr<Request>> queue_;
  Deque<Task> tasks_;
  std::vector<WaitingRequest> waiting_;  // for a state that has not come yet
  bool scheduled_ = false;
  std::shared_ptr<HeldTransaction> held_;  // the one that has the write slot
  std::vector<std::weak_ptr<HeldTransaction>> held_readers_;
  std::shared_ptr<OpenFiles> files_;  // null: closed
  DatabaseState state_;               // newest decided transaction
  Position visible_;                  // newest that SQLite has published
  TxId checkpointed_;
  Deque<LogEntry> log_;
  Deque<UnappliedRecord> unapplied_;  // records above checkpointed_, oldest first
  journal::Lsn state_lsn_;
  WalMap wal_map_;
  std::optional<Error> refused_;    // why nothing is taken any more
  std::optional<Error> exclusive_;  // a request that runs alone: why others wait
  bool dropped_ = false;
  bool checkpointing_ = false;
  std::uint32_t frames_at_checkpoint_ = 0;      // of the -wal, when it was last tried …
  std::uint64_t generation_at_checkpoint_ = 0;  // … and which generation that was
  bool idle_timer_armed_ = false;
  Deadline last_used_;
  std::string stopped_;
  std::unique_ptr<Subscribers<>> subscribers_;  // made when somebody subscribes; then it stays
  DatabaseLimits limits_;
  std::string tails_;                         // the file that it follows
  std::optional<FileFingerprint> closed_as_;  // the file as we left it
  std::vector<EpochEnd> ends_;

  Epoch term_;  // see lead()

  std::atomic<bool> follows_{false};              // see follow()
  std::atomic<bool> begins_filled_{false};        // see set_begins_filled()
  std::atomic<std::uint64_t> limits_version_{0};  // changes with limits_
  std::atomic<bool> reads_blocked_{false};        // limits_.reads_blocked

  bool needs_recovery_ = false;  // used at this database's turn only
};

}  // namespace offprint::database
