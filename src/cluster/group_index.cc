#include "cluster/group_index.h"

#include <algorithm>

#include "base/assert.h"

namespace offprint::cluster {

void IndexedGroup::append(Epoch epoch, const journal::Location& place) {
  log.append(epoch, Lsn{log.last().value + 1});
  places.push_back(place);
}

void IndexedGroup::truncate(Lsn to) {
  log.truncate(to);
  places.resize(log.last().value - log.base().value);
}

void IndexedGroup::forget_before(journal::Lsn lsn) {
  std::uint64_t gone = 0;
  while (!places.empty() && places.front().lsn < lsn) {
    places.pop_front();
    ++gone;
  }
  if (gone > 0) log.forget(Lsn{log.base().value + gone});
}

void GroupIndex::visit(const journal::Record& record) {
  if (record.group == journal::kLocalGroup) return;
  Found& found = groups_[record.group];
  found.group.commit = std::max(found.group.commit, record.commit_lsn);
  if (record.kind == journal::Kind::kPromise) return;  // the journal itself knows
  const bool truncates = record.kind == journal::Kind::kTruncate;
  // A truncation beyond the end begins it anew.
  if (!found.begun || (truncates && record.group_lsn > found.group.log.last())) {
    found.begun = true;
    found.group.places.clear();
    found.group.log = truncates ? GroupLog(record.group_lsn, record.fencing_epoch)
                                : GroupLog(Lsn{record.group_lsn.value - 1}, record.previous_epoch);
  }
  if (truncates) return found.group.truncate(std::max(record.group_lsn, found.group.log.base()));
  OFFPRINT_ASSERT(record.group_lsn.value == found.group.log.last().value + 1);
  found.group.append(record.fencing_epoch, record.location);
}

IndexedGroup GroupIndex::take(const journal::Journal& journal, std::uint32_t group) {
  journal::GroupState state = journal.group(group);
  Found found;
  if (auto node = groups_.extract(group)) found = std::move(node.mapped());
  if (!found.begun) found.group.log = GroupLog(state.last, state.epoch);
  OFFPRINT_ASSERT(found.group.log.last() == state.last);
  found.group.promised = state.promised;
  found.group.commit = std::max({found.group.commit, state.commit, found.group.log.base()});
  return std::move(found.group);
}

}  // namespace offprint::cluster
