#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "journal/large_files.h"
#include "journal/segment.h"

// Opening an existing journal: find the tail, tell it from damage, make what survives durable and
// what does not gone. The algorithm in prose: docs/format/journal.md, "Recovery".
namespace offprint::journal {

struct RecoveredState {
  JournalId id;
  std::vector<SegmentPointer> segments;  // oldest first; empty: there is no journal yet
  SegmentPointer prepared;               // the next one, when it is there and holds nothing
  Lsn end;                               // of the last surviving record
  Lsn known_durable;                     // the greatest durable lsn that a surviving record states
  std::map<std::uint32_t, GroupState> groups;
};

// kCorrupt: damage at or below what was durable; nothing was changed. kInvalid: of a newer format;
// nothing was changed. After it returned, everything below `end` is durable and nothing above it
// can be taken for a record.
Result<RecoveredState> recover(FileSystem& files, const std::string& directory, LargeFiles& large);

// Calls `take` with every record of the caller's kinds, oldest first.
using RecordTaker = std::function<Result<>(const Record&)>;
Result<> visit_records(const RecoveredState& state, const RecordTaker& take);

}  // namespace offprint::journal
