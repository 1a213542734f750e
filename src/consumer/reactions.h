#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "consumer/row_changes.h"
#include "consumer/spec.h"
#include "sqlite/connection.h"
#include "tail/folder_watch.h"

namespace offprint::consumer {

// What one look at the replicas came to.
struct ReactionCounts {
  std::string name;
  std::uint64_t inserted = 0, updated = 0, deleted = 0;
  std::string bookmark;  // the state that it stands for is at least this one; empty: no replica's
};

// Runs the service's SQL for each row of its replicas that changed: `on_row`. The rows' image, the
// cursor and what the SQL wrote are one transaction of the own database, so each change is run
// exactly once, whenever the process ends. Several changes of a row between two looks are one.
// Thread: one, but for stop().
class Reactions {
 public:
  // kNotFound: one of the files is not there. kInvalid: a table, a column, or the SQL does not fit.
  static Result<std::unique_ptr<Reactions>> open(const ConsumerSpec& spec);
  ~Reactions();
  Reactions(const Reactions&) = delete;
  Reactions& operator=(const Reactions&) = delete;

  // Looks at all replicas at once and runs what is to be run; those of which something changed.
  // After an error nothing was written. kSql: the statement of a row failed; the message names
  // both. kBusy: the own database is held by others; try again. kConflict: a name watched other
  // columns before.
  Result<std::vector<ReactionCounts>> run();

  // Waits until a replica has changed since run(), and not before `pause_ms`. False: stop() was
  // called.
  Result<bool> wait(int pause_ms = 0);
  // Async-signal-safe.
  void stop();

  // Forgets what a reaction has seen: all rows are new to it. False: there is nothing of that name.
  Result<bool> forget(const std::string& name);

 private:
  struct Replica {
    std::string name, path;
    dev_t device = 0;
    ino_t inode = 0;
    std::int64_t version = -1;  // as SQLite numbers the states that this connection saw
  };
  struct Script {
    std::vector<sqlite::Statement> statements;
    std::vector<std::vector<int>> columns;  // of the row of changes, for each parameter
  };
  struct Reaction {
    const ReactionSpec* spec;
    RowChanges rows;
    Script on_insert, on_update, on_delete;
    bool is_new = false;
  };

  explicit Reactions(const ConsumerSpec& spec) : spec_(spec) {}
  Result<> open_session();
  Result<Script> prepare(const Reaction& reaction, const std::string& sql);
  Result<bool> moved();
  Result<> begin(const char* statement);
  Result<std::string> bookmark_of(const std::string& schema) const;
  Result<> find_cursor(Reaction& reaction);
  Result<> keep_cursor(const Reaction& reaction, const std::string& bookmark);
  Result<bool> any_change();
  Result<std::vector<ReactionCounts>> run_all();
  Result<ReactionCounts> run_one(Reaction& reaction);
  Result<> run_row(Reaction& reaction, Script& script, const sqlite::Statement& row);
  Result<std::vector<ReactionCounts>> run_in_transaction();

  const ConsumerSpec spec_;
  std::unique_ptr<sqlite::Connection> connection_;
  std::vector<Replica> replicas_;
  std::vector<Reaction> reactions_;
  std::unique_ptr<tail::FolderWatch> watch_;
  int stop_event_ = -1;
  Deadline noticed_{};
};

}  // namespace offprint::consumer
