#pragma once

#include <boost/container/small_vector.hpp>

#include "cluster/protocol.h"

namespace offprint::cluster {

// Which epoch each record of a group's log was written in: two logs that agree about a record agree
// about all before it. Thread: one.
class GroupLog {
 public:
  // The log goes on after `base`; what came before is known by its result alone.
  explicit GroupLog(Lsn base = {}, Epoch base_epoch = {})
      : base_(base), base_epoch_(base_epoch), last_(base) {}

  Lsn base() const { return base_; }
  Lsn last() const { return last_; }
  Epoch last_epoch() const { return starts_.empty() ? base_epoch_ : starts_.back().epoch; }

  // base() <= lsn <= last().
  Epoch epoch_at(Lsn lsn) const;
  // Epochs never fall from record to record.
  void append(Epoch epoch, Lsn last);
  // to >= base().
  void truncate(Lsn to);
  // Records up to `base` are not kept any more. base() <= base <= last().
  void forget(Lsn base);

  // The newest record at or before `lsn` that was written in `epoch` or earlier; the base when
  // there is none.
  Lsn newest_of(Lsn lsn, Epoch epoch) const;
  // Records after `after` up to `last`, or up to where a message ends.
  EpochRuns runs(Lsn after, Lsn last) const;
  // The first record of `runs` that this log has with another epoch; Lsn{0}: none.
  Lsn first_conflict(const EpochRuns& runs) const;

  bool operator==(const GroupLog&) const = default;

 private:
  struct Start {
    Epoch epoch;
    Lsn first;
    bool operator==(const Start&) const = default;
  };
  Lsn base_;
  Epoch base_epoch_;
  boost::container::small_vector<Start, 4> starts_;  // ascending
  Lsn last_;
};

}  // namespace offprint::cluster
