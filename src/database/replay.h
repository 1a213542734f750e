#pragma once

#include <optional>
#include <set>
#include <unordered_map>

#include "database/hosted_database.h"
#include "journal/journal.h"

namespace offprint::database {

// A record's metadata of this type; null: it has none. Valid as long as the record.
const Bytes* find_metadata(const journal::Record& record, journal::MetadataType type);

// Of which state of another database a transaction is made: metadata 5, docs/format/journal.md.
Bytes encode_source(const Bookmark& source);
// Nothing: it has none, or one of another format.
std::optional<Bookmark> source_in(const journal::Record& record);

// `record` begins a new history: it is to be applied upon `unapplied`, or instead of it.
void note_new_history(Deque<UnappliedRecord>& unapplied, const UnappliedRecord& record);
// Those that are in the file are not to be applied.
void drop_applied(Deque<UnappliedRecord>& unapplied, TxId checkpointed);

// The database's state after a transaction or checkpoint. kCorrupt: it has none.
Result<DatabaseState> state_in(const journal::Record& record);
// Of a transaction whose state that is, in the log.
LogEntry entry_of(const journal::Record& record, const DatabaseState& state);

// Gathers, record by record, what the journal says about each database. Transactions of a common
// log count once they are known to be decided.
class Replay {
 public:
  Result<> visit(const journal::Record& record);
  // Records of the common log up to this one are decided.
  Result<> decide(journal::Lsn number);

  // Takes what was gathered; a database that the journal does not mention starts from `initial`.
  Replayed take(std::uint64_t database_id, const DatabaseState& initial);
  // Whether it was written, before take().
  bool has(std::uint64_t database_id) const {
    auto found = databases_.find(database_id);
    return found != databases_.end() && found->second.state.position.txid.value != 0;
  }
  bool is_dropped(std::uint64_t database_id) const { return dropped_.contains(database_id); }

 private:
  // A record of the common log that may still be cut off, and its database's txid.
  struct Undecided {
    journal::Record record;
    TxId txid;
  };

  Result<> hold_back(const journal::Record& record);
  Result<> decide_up_to(std::uint64_t database_id, TxId txid);
  Result<> take_in(const journal::Record& record);
  Result<> visit_transaction(const journal::Record& record, Replayed& database);

  Deque<Undecided> undecided_;  // by number
  std::unordered_map<std::uint64_t, Replayed> databases_;
  std::set<std::uint64_t> dropped_;
};

}  // namespace offprint::database
