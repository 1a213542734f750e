#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "database/rights.h"
#include "ltx/types.h"
#include "sqlite/connection.h"

// What a client sent in one go, and what became of it. Implemented by server/; run by database/.
namespace offprint::database {

class Session;
class HeldTransaction;

// A moment of a database's history: a state, the newest one at a Unix time, or a named one.
struct AtTime {
  std::int64_t unix_ms = 0;
  bool operator==(const AtTime&) const = default;
};
struct Tag {
  std::string name;
  bool operator==(const Tag&) const = default;
};
using Moment = std::variant<Bookmark, AtTime, Tag>;

struct NamedValue {
  std::string name;  // with or without its prefix (: @ $)
  sqlite::Value value;
};

// One statement with its arguments. Arguments must match the parameters exactly.
struct SqlStatement {
  std::string sql;
  std::vector<sqlite::Value> args;
  std::vector<NamedValue> named_args;
};

// Statements that are still to run, one after the other: their text, and the arguments of all of
// them. Views: whoever owns them must outlive the run.
struct Script {
  std::string_view sql;
  std::span<const sqlite::Value> args;
};

// Takes the rows of one statement, on the thread that runs it.
class RowSink {
 public:
  virtual ~RowSink() = default;
  // Once for each statement that runs, before its first row, also when it has no rows or no
  // columns.
  virtual void columns(const sqlite::Statement& statement) = 0;
  // An error (a result that grew too large) ends the statement with it.
  virtual Result<> row(const sqlite::Statement& statement) = 0;
};

// For who does not want them.
class DropRows final : public RowSink {
 public:
  void columns(const sqlite::Statement&) override {}
  Result<> row(const sqlite::Statement&) override { return {}; }
};

// What one statement did.
struct StatementResult {
  std::int64_t changes =
      0;  // rows inserted, updated, deleted, triggers included as sqlite3_total_changes
  std::int64_t last_insert_rowid = 0;  // of the connection, after the statement
  std::uint64_t rows_read = 0;         // an estimate
  std::uint64_t rows_written = 0;      // an estimate
  bool read_only = true;
};

// Makes a request happen once, however often it is sent.
struct RequestKey {
  std::string key;      // chosen by the client, for this request only
  std::string content;  // a hash of what is asked for
};
// What became of a request with a key when it came first.
struct KeptOutcome {
  Bookmark bookmark;                  // the state that it left
  std::optional<std::string> answer;  // nothing: it was too large to be kept
};

// What became of a request.
struct Outcome {
  enum class State {
    kCommitted,  // what it wrote is durable; also: it wrote nothing, or only read
    kRejected,   // nothing of it happened, and `error` says why
    kUnknown,    // it may or may not have happened (the journal failed while it was being decided)
  };
  State state = State::kCommitted;
  std::optional<Error> error;             // set unless kCommitted
  Bookmark bookmark;                      // the state that it left or saw
  std::shared_ptr<HeldTransaction> held;  // its transaction stays open (Request::keep_transaction)
};

// One request: a pipeline, a query, a batch. What users see is exactly what it alone, in queue
// order, would have got; that it shares an SQLite transaction with others shows nowhere.
class Request {
 public:
  virtual ~Request() = default;

  // Executes statements through `session`, gathering results in this object. May be called again
  // from the start (on the same or another thread, never twice at once) when the transaction it
  // shared was lost, or when a read turned out to be a write or too long for the thread: it must
  // then drop what an earlier call gathered. Returns early when session.lost(). A statement's
  // failure is the request's own business: it may go on or stop, as its protocol says.
  virtual void run(Session& session) = 0;

  // Exactly once, on any thread, after the last run: results may be sent when the state is
  // kCommitted. Must be quick and must not wait.
  virtual void done(Outcome outcome) = 0;

  // All that run() will execute is likely to be reading: it is tried on a reader first, without a
  // queue.
  virtual bool likely_read_only() const = 0;
  // A transaction still open at the end of run() stays open for later requests (Outcome::held),
  // else it is rolled back.
  virtual bool keep_transaction() const { return false; }

  // It takes long and shares nothing: it has the database's writer for itself, and whoever wants to
  // write meanwhile is refused (kBusy "IMPORT_RUNNING").
  virtual bool runs_alone() const { return false; }

  // --- of a request with a key. What it writes and what it is answered are one transaction; it is
  // never kept open, and nothing in it may need a transaction of its own.
  // What is kept for a retry if `outcome` is what becomes of it; asked after a run() that wrote, on
  // its thread. Nothing: only that it was committed.
  virtual std::optional<std::string> answer_to_keep(const Outcome& outcome) {
    (void)outcome;
    return std::nullopt;
  }
  // Instead of run(): it happened before. An error: the key is another request's. done() follows.
  virtual void recall(Result<KeptOutcome> before) { (void)before; }
  std::optional<RequestKey> key = {};

  // When to give up; statements are interrupted then and answer Code::kTimeout.
  Deadline deadline = Deadline::max();
  // A read must see at least this state; the copy waits for it until the deadline, then answers
  // kBehind.
  std::optional<Bookmark> at_least;
  // What its SQL may do: what goes beyond answers kForbidden. Empty: everything.
  std::shared_ptr<const SqlRights> rights;
  // It reads an earlier state. No other wish counts then, and what would write is refused.
  std::optional<Moment> as_of;
  // It may change the schema though a SchemaGuard refuses that.
  bool may_break = false;
  // What it writes is made of this state of another database, and is kept with the transaction
  // (Store::source_of). For those who are the only writers of a database.
  std::optional<Bookmark> source;
  // A copy must not answer: kNotPrimary there.
  bool needs_primary = false;
};

// First word decides: SELECT, VALUES, WITH, EXPLAIN, PRAGMA (skipping comments, blanks and
// semicolons). A guess for likely_read_only(): wrong guesses only cost time.
bool looks_read_only(std::string_view sql);

}  // namespace offprint::database
