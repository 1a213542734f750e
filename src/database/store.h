#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file_system.h"
#include "base/result.h"
#include "database/commit_log.h"
#include "database/insights.h"
#include "database/name.h"
#include "database/replication.h"
#include "database/request.h"
#include "database/statement_totals.h"
#include "database/usage.h"
#include "journal/journal.h"
#include "ltx/types.h"

// All databases of one node: catalog, journal, open files, writer threads. The way in for server/
// and replica/.
namespace offprint::database {

class UserConnection;

struct StoreOptions {
  std::string directory;  // made when absent
  std::string node_name = "local";
  FileSystem* files = &FileSystem::real();
  const char* base_vfs = nullptr;  // SQLite's VFS below ours; nullptr: the default one
  journal::Options journal;
  int writer_threads = 32;          // at most; started on demand
  int helper_threads = 4;           // snapshots, opening files
  int long_read_threads = 4;        // half of them for one database at most
  int idle_close_ms = 10'000;       // an unused database is closed after this
  int transaction_idle_ms = 5'000;  // an interactive transaction is rolled back after this
  int statement_inline_ms = 3;      // a read that takes longer moves off the caller's thread
  int copy_timeout_ms = 3'600'000;  // an SqlSnapshot ends after this, whoever still reads it
  std::uint64_t log_bytes_max =
      256 << 20;  // recent transactions kept for followers, all databases together …
  std::int64_t log_age_max_ms = 3'600'000;        // … and for how long
  std::uint64_t log_held_bytes_max = 4ULL << 30;  // … hold_log() keeps no more than this
  std::uint32_t checkpoint_frames = 4'000;        // -wal frames that start a checkpoint
  int slow_ms = 1'000;                            // a statement is slow from here on; 0: none is
  // What became of requests with a key is kept for so long, and of so many in a database, at most;
  // answers up to this size.
  std::int64_t key_age_max_ms = 86'400'000;
  std::int64_t keys_max = 100'000;
  std::size_t key_answer_bytes_max = 64 << 10;
  int usage_flush_ms = 60'000;  // usage is kept on the disk so often
  // The clock of transactions, and of months.
  std::function<std::int64_t()> wall_clock_ms = unix_time_ms;
  // All databases are copies of another node's: they are written by apply() and replace() alone,
  // and requests that only the primary can answer get kNotPrimary.
  bool copies = false;
  int copy_wait_ms = 1'000;  // how long a read waits here for its bookmark
  // Of a node of a cluster: what decides its transactions; outlives the store.
  CommonLog* common_log = nullptr;
  // The folder is being restored (kRestoringFile, database/store_folder.h): asked for the list of
  // databases while there is none yet. Nothing: it begins empty.
  std::function<Result<std::optional<AdoptedFile>>()> restore_catalog;
  // The journal failed: the outcome of writes is unknown, nothing may go on. nullptr: log it and
  // end the process.
  std::function<void(const Error&)> on_fatal;
};

struct CreateOptions {
  std::uint32_t page_size = 4096;  // 512 … 65536
  int auto_vacuum = 0;             // 0 none, 1 full, 2 incremental
  std::string encoding = "UTF-8";  // UTF-8, UTF-16le, UTF-16be
  bool foreign_keys = true;
  // Path of a program's own file whose content it has: it is written by apply() and begin_copy()
  // alone, other writes get kForbidden. Empty: it is the node's own.
  std::string tails = {};
};

// What a database may use, 0: no limit of its own, and how it is kept. docs/guides/operations.md,
// "Limits of a database".
struct DatabaseLimits {
  std::uint64_t size_bytes_max = 0;    // of the file: writes that would grow it answer SQLITE_FULL
  std::uint32_t statement_ms_max = 0;  // a statement is interrupted after this
  std::uint64_t rows_max = 0;          // a statement that answers more rows fails
  bool writes_blocked = false;
  bool reads_blocked = false;  // and writes with them; streams of followers go on
  std::string block_reason;    // told to those who are refused
  // When a commit is acknowledged: on this node's disk, or in its archive too.
  enum class Durability : std::uint8_t { kServers, kDisk, kArchive };
  Durability durability = Durability::kServers;
  std::uint32_t retention_days = 0;  // any moment of so long can be restored; 0: as the server says
  bool operator==(const DatabaseLimits&) const = default;
};

struct DatabaseInfo {
  std::uint64_t id = 0;
  std::string name;
  Bookmark bookmark;
  std::uint32_t page_size = 0;
  std::uint32_t page_count = 0;
  std::int64_t created_at_ms = 0;
  std::int64_t written_at_ms = 0;  // newest transaction, by its primary's clock; 0: none
  bool open = false;
  int readers = 0;
  std::string stopped;  // why it takes no writes; empty: it does
  CreateOptions options;
  DatabaseLimits limits;
  std::vector<Bookmark> ancestors;  // of a fork: the last states that it shares, oldest first
};

// A state of a database that has a name.
struct TagInfo {
  std::string tag;
  Bookmark bookmark;
  std::int64_t created_at_ms = 0;
  std::uint64_t size_bytes = 0;  // that it takes on the disk
};

struct DroppedName {
  std::string name;
  Epoch epoch;
};

// One transaction of a database's recent history.
struct LogEntry {
  TxId txid;
  Epoch epoch;
  Checksum checksum;  // of the database after it …
  Checksum before;    // … and before it; 0: not known
  std::int64_t timestamp_ms = 0;
  journal::Location location;  // its LTX file: Store::open_payload
};

// A consistent state of a database, page by page, for as long as it lives (it holds a read
// transaction). Thread: one at a time. Blocks on the disk.
class Snapshot {
 public:
  virtual ~Snapshot() = default;
  virtual Position position() const = 0;
  virtual std::uint32_t page_size() const = 0;
  virtual std::uint32_t page_count() const = 0;
  // The image of a page as the primary's transactions carried it (its checksums add up to
  // position().checksum); zeros for the lock page. Valid until the next call.
  virtual Result<ByteView> page(PageNo page) = 0;
};

// A consistent state of a database for SQL, for as long as it lives; it keeps the -wal from
// starting again. Thread: one at a time. Blocks on the disk.
class SqlSnapshot {
 public:
  virtual ~SqlSnapshot() = default;
  virtual Bookmark bookmark() const = 0;
  // Runs `work` on a read-only connection whose read transaction sees that state. Statements made
  // there may be kept until a later call. kTimeout: it lived longer than
  // StoreOptions::copy_timeout_ms, and has let go of the state.
  virtual Result<> with(const std::function<Result<>(sqlite::Connection&)>& work) = 0;
  // The same for SQL of users, which the policy of docs/sql.md looks at.
  virtual Result<> with_user(const std::function<Result<>(UserConnection&)>& work) = 0;
  // Lets go of this state and sees the newest one from then on. Statements that are kept must be
  // reset.
  virtual Result<> renew() = 0;
};

// States that the log does not lead back to: an archive's. Thread: any. Blocks.
class OlderStates {
 public:
  virtual ~OlderStates() = default;
  // As Store's own; kNotFound: the archive does not have that moment.
  virtual Result<Bookmark> bookmark_at(const DatabaseName& name, std::int64_t time_ms) = 0;
  virtual Result<std::unique_ptr<Snapshot>> snapshot_at(const DatabaseName& name,
                                                        const Bookmark& at) = 0;
};

// What one transaction did.
struct TransactionDetails {
  std::uint32_t pages = 0;
  std::uint32_t page_count = 0;     // of the database after it
  bool schema_changed = false;      // as far as the schema cookie tells
  std::vector<std::string> tables;  // it wrote to these or their indexes, by name
};

// What a database publishes (publication/definition.h). What it says never changes once it is
// published.
struct StoredPublication {
  enum class State : std::uint8_t { kDraft, kPublished, kDeprecated, kRetired };
  std::string name;
  std::uint32_t version = 0;
  std::string definition;
  std::int64_t created_at_ms = 0;
  std::string hash = {};  // of what it means in the database: publication/plan.h
  State state = State::kPublished;
  std::int64_t sunset_ms = 0;  // of a deprecated one: until when it is kept; 0: not said
  // Of each instance; 0: the server's own limits alone.
  std::uint64_t size_bytes_max = 0;
  std::uint64_t rows_per_minute_max = 0;  // changed ones

  // Readers rely on it.
  bool is_live() const { return state == State::kPublished || state == State::kDeprecated; }
};

// A program that reads a version of a publication, as it was registered.
struct StoredConsumer {
  struct Query {
    std::string name;  // a file's, such as "report.sql"
    std::string sql;
    bool operator==(const Query&) const = default;
  };
  std::string publication;
  std::uint32_t version = 0;
  std::string name;
  std::int64_t registered_at_ms = 0;
  std::vector<Query> queries = {};  // in their order
  // Published tables and their columns, by name, that the queries read; an empty column: the table
  // as such, as count(*) does.
  std::vector<std::pair<std::string, std::string>> reads = {};
};

// Asked before a transaction commits that changed the schema of a database. Thread: any.
class SchemaGuard {
 public:
  virtual ~SchemaGuard() = default;
  // Quick: whether to ask for that database at all.
  virtual bool guards(std::uint64_t database_id) const = 0;
  // Before the change: what does not fit the schema already, and cannot be broken by it. Must not
  // wait for anything of the store; nor must check().
  virtual std::vector<std::string> broken(std::uint64_t database_id,
                                          sqlite::Connection& current) = 0;
  // An error refuses the transaction. The connection has the changed schema. `broken`: what
  // broken() said before it.
  virtual Result<> check(std::uint64_t database_id, sqlite::Connection& changed,
                         const std::vector<std::string>& broken) = 0;
};

// Ends when destroyed; after that the callback is not running and will not be called.
class Subscription {
 public:
  virtual ~Subscription() = default;
};

// How answers wait for the archive, where they do (DatabaseLimits::durability).
struct ArchiveWait {
  // Calls `reached` once, on any thread, when the archive has the database's transaction `at`, or
  // will not get it. Quick.
  std::function<void(const std::string& name, const Bookmark& at,
                     std::function<void(const Result<>&)> reached)>
      wait;
  bool by_default = false;                    // of databases whose durability is the server's
  std::chrono::milliseconds at_most{10'000};  // then the answer is kUnknown; the commit stands
};

// Tokens that count no more: one by its id, or all that were issued before a time for a database.
struct Revocation {
  std::string token_id;           // empty: the other kind
  std::int64_t until_s = 0;       // the token has expired then, and the entry is dropped
  std::string database;           // its name, or "*" for all
  std::int64_t not_before_s = 0;  // seconds since the Unix epoch
};

struct StoreMetrics {
  std::uint64_t databases = 0, open_databases = 0, requests_read = 0, requests_write = 0,
                batches = 0, transactions = 0, rejected = 0, offenders = 0, journal_syncs = 0,
                journal_bytes = 0, journal_disk_bytes = 0, checkpoints = 0, recoveries = 0,
                queue_length = 0;
  StatementSums statements;
};

// Thread: any. Methods marked "blocks" may wait for the disk: not for I/O threads (use
// post_blocking).
class Store {
 public:
  // Blocks: recovers the journal and the catalog. Databases are recovered when first used.
  static Result<std::unique_ptr<Store>> open(StoreOptions options);
  // Finishes what was taken, rolls back open transactions, closes everything.
  virtual ~Store() = default;

  // Blocks. kConflict: the name is taken.
  virtual Result<DatabaseInfo> create(const DatabaseName& name, const CreateOptions& options) = 0;
  // Blocks. Ends running requests and streams of the database, then its files.
  virtual Result<> drop(const DatabaseName& name) = 0;
  // From memory. kNotFound.
  virtual Result<DatabaseInfo> info(const DatabaseName& name) = 0;
  // The same by its number; looks at all of them.
  virtual Result<DatabaseInfo> info(std::uint64_t id) = 0;
  // By name, those greater than `after` that start with `prefix` and hold `contains`.
  virtual std::vector<DatabaseInfo> list(const std::string& prefix, const std::string& after,
                                         std::size_t limit, const std::string& contains = {}) = 0;
  // Blocks. Durable; counts from the next request on. What is larger already stays.
  virtual Result<> set_limits(const DatabaseName& name, const DatabaseLimits& limits) = 0;
  // Blocks. Durable; the file that a database with CreateOptions::tails follows is elsewhere now.
  virtual Result<> set_tails(const DatabaseName& name, const std::string& path) = 0;
  // Blocks. Brings what is committed into the database's file, as far as readers of older states
  // leave room.
  virtual Result<> checkpoint(const DatabaseName& name) = 0;

  // Runs a request; its done() is called exactly once, perhaps before this returns (a short read on
  // this very thread). Errors (no such database …) come through done() too.
  virtual void submit(const DatabaseName& name, std::unique_ptr<Request> request) = 0;
  // A further request of an open interactive transaction. When it has expired meanwhile, done()
  // gets kTimeout.
  virtual void submit(const std::shared_ptr<HeldTransaction>& held,
                      std::unique_ptr<Request> request) = 0;
  // Rolls it back now (the client went away).
  virtual void release(const std::shared_ptr<HeldTransaction>& held) = 0;

  // Creates a database with the content of an SQLite file, or gives an empty (never written) one
  // that content, as one transaction: all of it or nothing. Blocks. kConflict when it was written
  // before, kInvalid when the file is no sound database. `options` are for a database that is
  // created; what stands in the file goes before.
  virtual Result<Bookmark> import_file(const DatabaseName& name, const std::string& path,
                                       const CreateOptions& options = {}) = 0;

  // Makes a database of a file, or gives it to one that was never written: it stands at the file's
  // position then, all of it or nothing. Transactions after that one, of epochs before the
  // position's, are lost: their bookmarks are of another history from then on. Blocks. kConflict:
  // the database was written; kInvalid: it is no database file. After an error the file may be
  // gone.
  virtual Result<> adopt_file(const DatabaseName& name, const AdoptedFile& file,
                              const CreateOptions& options = {}) = 0;
  // Names whose last database was dropped, with its epoch. Blocks.
  virtual Result<std::vector<DroppedName>> dropped_names() = 0;

  // --- copies of another node's databases (StoreOptions::copies), or of a file (`tails`)
  // Transactions that follow on where the copy stands, oldest first. Journaled, then applied as
  // one, then `done` (any thread, must be quick). kBehind, kConflict: they do not follow, or the
  // copy is not what it should be: it needs begin_copy(). Whatever the answer, it is a state of the
  // primary.
  virtual void apply(const DatabaseName& name, std::vector<IncomingTransaction> transactions,
                     std::function<void(Result<>)> done) = 0;
  // The database as it is at another position, page by page: all pages (`whole`), or those that
  // differ from what the copy has. Makes the database when it is absent. Blocks, as its methods do.
  virtual Result<std::unique_ptr<CopyWriter>> begin_copy(const DatabaseName& name,
                                                         const CopyTarget& target) = 0;

  // --- histories; here alone the list of databases is one too, as DatabaseName::catalog()
  // Where the database stands: the newest visible transaction. From memory.
  virtual Result<Position> position(const DatabaseName& name) = 0;
  // The database's checksum at an earlier position that the log still knows (or the current one).
  // kBehind: too old, unknown or another lineage: the follower needs pages.
  virtual Result<Checksum> checksum_at(const DatabaseName& name, const Bookmark& bookmark) = 0;
  // Up to `limit` transactions after `after`, oldest first; empty when there are none yet. kBehind
  // as above.
  virtual Result<std::vector<LogEntry>> log_after(const DatabaseName& name, const Bookmark& after,
                                                  std::size_t limit) = 0;
  // Up to `limit` transactions of the log, the newest before `before` (nothing: of all) first.
  virtual Result<std::vector<LogEntry>> log_before(const DatabaseName& name,
                                                   std::optional<TxId> before,
                                                   std::size_t limit) = 0;
  // Blocks: makes the state that it left. kBehind: the log does not lead back there.
  virtual Result<TransactionDetails> details(const DatabaseName& name, const LogEntry& entry) = 0;
  // Blocks for large ones.
  virtual Result<std::unique_ptr<ltx::ByteSource>> open_payload(
      const journal::Location& location) = 0;
  // What a transaction's pages were before it, for read_undo(); nothing: it did not note that.
  // Blocks, for a read of the journal. kNotFound: the log has it no more.
  virtual Result<std::optional<Bytes>> undo(const journal::Location& location) = 0;
  // The Request::source of a transaction; nothing: it had none. Blocks, as undo().
  virtual Result<std::optional<Bookmark>> source_of(const journal::Location& location) = 0;
  // `changed` is called (on any thread, must be quick) after each visible transaction and when the
  // database is dropped (then position() answers kNotFound).
  virtual Result<std::unique_ptr<Subscription>> subscribe(const DatabaseName& name,
                                                          std::function<void()> changed) = 0;
  // `added` is called (on any thread, must be quick) with the name of each database that can be
  // found from then on.
  using Named = std::function<void(const std::string& name)>;
  virtual std::unique_ptr<Subscription> subscribe_names(Named added) = 0;
  // `committed` is called (on any thread, must be quick) with the name of each database after its
  // transactions have become visible, and where the first of these is in the journal.
  using Committed = std::function<void(const std::string& name, journal::Lsn first)>;
  virtual std::unique_ptr<Subscription> subscribe_commits(Committed committed) = 0;
  // Transactions from `needed_from` on (asked on any thread; nothing: none) stay in the log over
  // its limits, up to StoreOptions::log_held_bytes_max. Empty ends it; waits for a call that runs.
  virtual void hold_log(std::function<std::optional<journal::Lsn>()> needed_from) = 0;
  // Set before requests come; empty once the archive is gone. Without it, answers that are to wait
  // are kUnknown at once.
  virtual void set_archive_wait(ArchiveWait wait) = 0;
  // `stopped` is called (on any thread, must be quick) with the name of each database whose file is
  // found to be damaged or changed by another program; from then on it takes nothing but a copy.
  virtual std::unique_ptr<Subscription> subscribe_stopped(Named stopped) = 0;
  // Blocks.
  virtual Result<std::unique_ptr<Snapshot>> snapshot(const DatabaseName& name) = 0;
  // The same by its number, 0 for the list of databases, for another node that is to hold it too:
  // of databases whose reads are blocked as well.
  virtual Result<std::unique_ptr<Snapshot>> snapshot(std::uint64_t id) = 0;
  // Which state a moment is. Blocks. kNotFound: the database was empty or absent, or has no such
  // tag, or "HISTORY_UNAVAILABLE": the log has forgotten, and nobody else knows.
  virtual Result<Bookmark> bookmark_of(const DatabaseName& name, const Moment& moment) = 0;
  // An earlier state (or the newest one). Blocks. Errors as above.
  virtual Result<std::unique_ptr<Snapshot>> snapshot_at(const DatabaseName& name,
                                                        const Moment& moment) = 0;
  // Who is asked for what the log does not lead back to; outlives the store, or is taken away.
  virtual void set_older_states(OlderStates* older) = 0;
  // Gives a state a name, and keeps it until that is removed. Blocks. kConflict: the name is taken.
  virtual Result<TagInfo> add_tag(const DatabaseName& name, const std::string& tag,
                                  Snapshot& state) = 0;
  virtual Result<> remove_tag(const DatabaseName& name, const std::string& tag) = 0;
  // By name.
  virtual Result<std::vector<TagInfo>> tags(const DatabaseName& name) = 0;
  // Makes the database what `to` shows, as one further transaction of the next epoch: readers,
  // followers and bookmarks go on, and what was before stays in the history. Equal but for the
  // counters in page 1's header and the schema cookie, which is raised. Open transactions end; what
  // is written meanwhile waits. Blocks. kInvalid: not of this page size, or empty.
  virtual Result<Bookmark> rewrite(const DatabaseName& name, Snapshot& to) = 0;
  // A new database with the content of `from`, an earlier or the newest state of `name`: a lineage
  // of its own that goes on from there. Bookmarks of the parent up to there count as reached.
  // Blocks. kConflict: the name is taken.
  virtual Result<DatabaseInfo> fork(const DatabaseName& name, const DatabaseName& fork,
                                    Snapshot& from) = 0;
  // Blocks.
  virtual Result<std::shared_ptr<SqlSnapshot>> sql_snapshot(const DatabaseName& name) = 0;

  // --- of a node of a cluster (StoreOptions::common_log); one at a time
  // Of the records that the journal had when it was opened those up to `number` are decided, the
  // others were cut off. Nothing else may be called before; then the databases are copies. Blocks.
  virtual Result<> begin(journal::Lsn number) = 0;
  // Records that were decided since, in the order of the log; some may have been written here.
  // They are visible when it returns. Blocks. kCorrupt: they do not follow on what is here.
  virtual Result<> take_decided(std::span<const journal::Location> records) = 0;
  // All that was decided was taken, and this node writes now. `cut`: the lineage that the log got
  // when an operator cut it; what bookmarks tell of that is not here was lost. Blocks.
  virtual Result<> lead(Epoch term, const std::optional<Lineage>& cut) = 0;
  // Another node writes: what only the primary can do is refused with kNotPrimary.
  virtual void follow() = 0;

  // Null: none any more.
  virtual void set_schema_guard(std::shared_ptr<SchemaGuard> guard) = 0;
  // Kept with the list of databases. Block. add_publication: kConflict, that version is there.
  // update_publication: its state, and of a draft what it says.
  virtual Result<std::vector<StoredPublication>> publications(const DatabaseName& name) = 0;
  virtual Result<> add_publication(const DatabaseName& name,
                                   const StoredPublication& publication) = 0;
  virtual Result<> update_publication(const DatabaseName& name,
                                      const StoredPublication& publication) = 0;
  // Of all databases, with their numbers.
  virtual Result<std::vector<std::pair<std::uint64_t, StoredPublication>>> all_publications() = 0;
  // With its consumers.
  virtual Result<> remove_publication(const DatabaseName& name, const std::string& publication,
                                      std::uint32_t version) = 0;
  // Of all that a database publishes: by publication, version and name. Block. put_consumer takes
  // the place of one of the same name. remove_consumer: kNotFound.
  virtual Result<std::vector<StoredConsumer>> consumers(const DatabaseName& name) = 0;
  virtual Result<> put_consumer(const DatabaseName& name, const StoredConsumer& consumer) = 0;
  virtual Result<> remove_consumer(const DatabaseName& name, const std::string& publication,
                                   std::uint32_t version, const std::string& consumer) = 0;
  // Of all databases, with their numbers.
  virtual Result<std::vector<std::pair<std::uint64_t, StoredConsumer>>> all_consumers() = 0;

  // Kept with the list of databases; durable when it returns. Blocks.
  virtual Result<> revoke(const Revocation& revocation) = 0;
  virtual Result<std::vector<Revocation>> revocations() = 0;
  // What its statements cost since a Unix time (by hours, the newest 24), most time first; since
  // the process began at most. From memory.
  virtual Result<std::vector<StatementInsight>> insights(const DatabaseName& name,
                                                         std::int64_t since_ms,
                                                         std::size_t limit) = 0;

  // Its last statements that took StoreOptions::slow_ms or longer, newest first; since the process
  // began at most, and 100. From memory.
  virtual Result<std::vector<SlowStatement>> slow_statements(const DatabaseName& name,
                                                             std::size_t limit) = 0;
  // What databases were used for in a month, by name and number; dropped ones too. Up to the last
  // statement that has ended. Blocks.
  virtual Result<std::vector<UsageRecord>> usage(const UsageQuery& query) = 0;
  // The months in which this one was used, newest first: this month and twelve before it. Blocks.
  virtual Result<std::vector<UsageRecord>> usage(const DatabaseName& name) = 0;

  // Runs `work` on a helper thread.
  virtual void post_blocking(std::function<void()> work) = 0;
  // The same with a piece of long work, which gives way to writes: while there are any it begins
  // after `rest`.
  virtual void post_piece(std::chrono::nanoseconds rest, std::function<void()> work) = 0;

  // This node is about to give up being primary (true), or stays it (false). Meanwhile no
  // interactive transaction begins that may write (kNotPrimary); answers how many are open.
  virtual int set_leaving(bool leaving) = 0;

  virtual StoreMetrics metrics() = 0;
};

}  // namespace offprint::database
