#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <variant>

#include <boost/container/static_vector.hpp>

#include "journal/journal.h"
#include "ltx/types.h"

// What the members of a placement group tell each other, and what they know. Rules R1 to R12 and
// why they are as they are: docs/cluster-protocol.md.
namespace offprint::cluster {

using journal::Lsn;  // here always: a record's number in its group's log, 1, 2, 3 …

// By a clock that never goes back and goes on while the machine sleeps (CLOCK_BOOTTIME). Of one
// member; those of two have nothing to do with each other but their rate.
using Time = std::chrono::microseconds;

// One copy of the group's log: the random id of a node's data folder. A folder that was wiped or
// restored is another member.
struct MemberId {
  std::uint64_t value = 0;
  auto operator<=>(const MemberId&) const = default;
};

inline constexpr std::size_t kMembersMax = 7;
using Members = boost::container::static_vector<MemberId, kMembersMax>;

inline bool contains(const Members& members, MemberId member) {
  for (MemberId each : members) {
    if (each == member) return true;
  }
  return false;
}
inline Members without(const Members& members, MemberId member) {
  Members rest;
  for (MemberId each : members) {
    if (each != member) rest.push_back(each);
  }
  return rest;
}

// The group's record in the coordinator. It changes by compare-and-swap on its version alone.
struct GroupView {
  std::uint64_t version = 0;  // of the register, grows with every change; 0: never read
  Epoch epoch;
  MemberId primary;
  Members in_sync;   // a commit is on the disk of all of them
  Members replicas;  // all copies, those in sync among them
  std::uint32_t min_in_sync = 1;
  bool operator==(const GroupView&) const = default;
};

// Records that follow on each other and were written in one epoch.
struct EpochRun {
  Epoch epoch;
  Lsn first;
  Lsn last;
  bool operator==(const EpochRun&) const = default;
};
inline constexpr std::size_t kRunsMax = 4;  // in one message
using EpochRuns = boost::container::static_vector<EpochRun, kRunsMax>;

// Primary to all replicas: records, or none (a beacon).
struct Append {
  Epoch epoch;
  Time sent_at{};  // by the primary's clock; comes back in the answer
  Lsn start;       // first record of this epoch in the primary's log
  Lsn previous;    // the records follow on this one …
  Epoch previous_epoch;
  EpochRuns runs;
  Lsn commit;

  Lsn end() const { return runs.empty() ? previous : runs.back().last; }
};

// The sender promises for a grace to follow no other primary, and has the primary's log up to
// `durable` on its disk.
struct Ack {
  Epoch epoch;
  Time sent_at{};  // of the message that it answers
  Lsn durable;
};

struct Nack {
  enum class Reason : std::uint8_t {
    kStaleEpoch,  // `epoch` was promised
    kGap,         // the logs may meet at `lsn`
    kDamaged,     // the sender's log cannot be used
    kNoSpace,
  };
  Reason reason = Reason::kGap;
  Epoch epoch;
  Lsn lsn;
  Epoch lsn_epoch;
};

// Old primary to the one it named: no lease of `epoch` counts any more; take over.
struct Go {
  Epoch epoch;
};

// The process that acted as primary in `epoch` has died, as its guardian saw: the member acts in no
// epoch up to it any more. From its guardian, in the member's own name.
struct Release {
  MemberId primary;
  Epoch epoch;
};

using Message = std::variant<Append, Ack, Nack, Go, Release>;

// What became of a compare-and-swap.
enum class CasOutcome : std::uint8_t {
  kApplied,
  kRefused,  // the record had changed
  kFailed,   // it was not sent: it never happens
  kUnknown,  // it may have happened, or may still happen
};

}  // namespace offprint::cluster
