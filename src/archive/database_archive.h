#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "archive/chain.h"
#include "archive/history.h"
#include "archive/object_store.h"
#include "archive/schedule.h"
#include "database/store.h"

namespace offprint::archive {

// One database's archive, as its only writer sees it: what is there, and what is to be put, merged
// and removed. Each step leaves the archive restorable to all that it was restorable to, whenever
// it is cut short, and is done again by calling it again. Thread: one at a time. Blocks.
class DatabaseArchive {
 public:
  // Reads what is there below the key `prefix` ("" or with '/' at its end). What this database does
  // not go on from (one that had its name before, or its own history of which it cannot be proven)
  // moves below `_offprint/dropped/` first, and a new history begins. kConflict: another program
  // writes it, or it is ahead of the database.
  static Result<std::unique_ptr<DatabaseArchive>> load(ObjectStore& objects, std::string prefix,
                                                       database::Store& store,
                                                       const database::DatabaseName& name,
                                                       const Schedule& schedule);

  // Whether the archive says that it has all of the database: one request instead of load().
  static bool is_complete(ObjectStore& objects, const std::string& prefix, database::Store& store,
                          const database::DatabaseName& name);

  // Another database may have got the name meanwhile.
  bool is_of_the_database() const;
  // The archive has all up to here; txid 0: nothing.
  TxId reached() const { return reached_; }
  // The same as a bookmark without its epoch.
  Bookmark reached_bookmark() const { return {Epoch{}, reached_, lineage_}; }
  // Called between pieces of large objects that keep_up() puts: it may put_transactions().
  void set_between(std::function<void()> between) { between_ = std::move(between); }
  // Puts what the database has beyond that now; what is committed meanwhile may be left to the next
  // call.
  Result<> put_transactions();
  // Compacts, notes the head, makes snapshots and removes what is over its time, as far as it is
  // due at `now_ms` (Unix time).
  Result<> keep_up(std::int64_t now_ms);
  // When keep_up() has something to do, or a little earlier; nothing: not before transactions come.
  std::optional<std::int64_t> due_ms() const { return due_ms_; }
  // What verify_archive() found: damaged objects are put again as far as the log has their
  // transactions, else they go below `offprint/damaged/`; what is missing is put again; where
  // something stays lost, a snapshot makes the newest moment restorable. Says what it did, in
  // words.
  Result<std::vector<std::string>> repair(const std::vector<std::string>& damaged_keys);
  // Notes how far the archive reaches, for those who restore it.
  Result<> note_head();

  struct Counters {
    std::uint64_t puts = 0, bytes = 0;
  };
  const Counters& counters() const { return counters_; }

 private:
  DatabaseArchive(ObjectStore& objects, std::string prefix, database::Store& store,
                  const database::DatabaseName& name, const Schedule& schedule)
      : objects_(objects),
        prefix_(std::move(prefix)),
        store_(store),
        name_(name),
        schedule_(schedule) {}

  Result<> read_what_is_there();
  // Why the database does not go on from it; empty: it does.
  Result<std::string> difference();
  Result<> move_away(const std::string& why);
  Result<> put_log(const std::vector<database::LogEntry>& entries);
  Result<> put_large(const database::LogEntry& entry);
  Result<> put_snapshot();
  Result<bool> put_again(const ArchivedFile& file);
  Result<bool> put_missing(TxId first, TxId last);
  Result<std::vector<database::LogEntry>> logged(TxId first, TxId last);
  Result<> set_aside(const ArchivedFile& file);
  Result<bool> fill_gaps(std::vector<std::string>& done);
  Result<> note_parts(const database::LogEntry& entry);
  Result<> put(ArchivedFile file, ltx::ByteSource& from);
  Result<> put_small(ArchivedFile file, ByteView content);
  void add(ArchivedFile file);
  void reach(TxId txid);
  std::vector<ArchivedFile> run_for(int level) const;
  std::optional<std::int64_t> find_due() const;
  void note_due(const ArchivedFile& file);
  Result<> compact(int to_level, std::int64_t now_ms);
  Result<> remove_covered(std::int64_t now_ms);
  Result<> retain(std::int64_t now_ms);
  Result<> put_history();
  const ArchivedFile& newest() const;  // reaches as far as any; there is one
  ArchivedFile file_of(int level, TxId min, TxId max, std::int64_t timestamp_ms) const;

  ObjectStore& objects_;
  const std::string prefix_;
  database::Store& store_;
  const database::DatabaseName name_;
  const Schedule schedule_;
  Lineage lineage_;  // of the database, when this was loaded
  History history_;
  bool has_history_ = false;
  TxId reached_;
  std::map<int, std::vector<ArchivedFile>> files_;           // by level, ascending
  std::optional<std::int64_t> window_ms_[kCompactedLevels];  // begin of the open one, by level - 1
  bool head_noted_ = true;
  std::optional<std::int64_t> due_ms_;
  Counters counters_;
  std::function<void()> between_;
};

}  // namespace offprint::archive
