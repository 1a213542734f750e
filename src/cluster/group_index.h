#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "cluster/group_log.h"
#include "journal/journal.h"

namespace offprint::cluster {

// A placement group's number in the journal, where 0 is the node's own.
inline std::uint32_t journal_group(std::uint32_t group) { return group + 1; }

// The log of one replicated group as it stands in this node's journal. Thread: one.
struct IndexedGroup {
  GroupLog log;
  std::deque<journal::Location> places;  // of the records after log.base()
  Epoch promised;
  Lsn commit;
  // Payloads in parts whose transaction is still to come, or to be decided: by their id.
  struct InParts {
    Lsn first, whole;  // the transaction's record; 0: not there yet
    Epoch epoch;       // of the newest of its records
    Deadline touched = SteadyClock::now();
  };
  std::map<std::uint64_t, InParts> in_parts;

  // Where a record of the log is; log.base() < lsn <= log.last().
  const journal::Location& place(Lsn lsn) const { return places[lsn.value - log.base().value - 1]; }
  void append(Epoch epoch, const journal::Location& place, journal::Kind kind,
              const std::vector<journal::Metadata>& metadata);
  void truncate(Lsn to);
  // Records that stand before `lsn` of the journal are not there any more.
  void forget_before(journal::Lsn lsn);
  // The first record of those in `in_parts` that are not decided with `decided`: who lacks it could
  // not make the payload.
  std::optional<Lsn> parts_from(Lsn decided);

 private:
  void note_parts(Epoch epoch, Lsn lsn, journal::Kind kind,
                  const std::vector<journal::Metadata>& metadata);
};

// Reads the groups' logs out of a journal while that is opened. Thread: one.
class GroupIndex {
 public:
  // As a Journal::Visitor, for every record.
  void visit(const journal::Record& record);
  // After the journal was opened: the group's log, which may be empty.
  IndexedGroup take(const journal::Journal& journal, std::uint32_t group);

 private:
  struct Found {
    IndexedGroup group;
    bool begun = false;  // a record said where the log begins
  };
  std::map<std::uint32_t, Found> groups_;
};

}  // namespace offprint::cluster
