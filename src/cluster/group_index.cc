#include "cluster/group_index.h"

#include <algorithm>

#include "base/assert.h"
#include "cluster/parts.h"

namespace offprint::cluster {

void IndexedGroup::append(Epoch epoch, const journal::Location& place, journal::Kind kind,
                          const std::vector<journal::Metadata>& metadata) {
  log.append(epoch, Lsn{log.last().value + 1});
  places.push_back(place);
  note_parts(epoch, log.last(), kind, metadata);
}

// Who sent parts is primary no more when a later epoch has begun, and does not go on.
void IndexedGroup::note_parts(Epoch epoch, Lsn lsn, journal::Kind kind,
                              const std::vector<journal::Metadata>& metadata) {
  std::erase_if(in_parts, [&](const auto& each) {
    return each.second.epoch < epoch && each.second.whole.value == 0;
  });
  if (kind == journal::Kind::kPart) {
    const auto part = PartName::in(metadata);
    if (!part) return;
    InParts& known = in_parts.try_emplace(part->id, InParts{lsn, {}, epoch}).first->second;
    known.touched = SteadyClock::now();
  } else if (const auto parts = PartsName::in(metadata)) {
    in_parts[parts->id] = {parts->first, lsn, epoch};
  }
}

std::optional<Lsn> IndexedGroup::parts_from(Lsn decided) {
  const Deadline left_before = SteadyClock::now() - kPartsLeftAfter;
  std::erase_if(in_parts, [&](const auto& each) {
    const bool is_decided = each.second.whole.value != 0 && each.second.whole <= decided;
    return is_decided || (each.second.whole.value == 0 && each.second.touched < left_before);
  });
  std::optional<Lsn> first;
  for (const auto& [id, each] : in_parts) first = std::min(first.value_or(each.first), each.first);
  return first;
}

void IndexedGroup::truncate(Lsn to) {
  log.truncate(to);
  std::erase_if(in_parts, [&](const auto& each) { return each.second.first > to; });
  for (auto& [id, each] : in_parts) {
    if (each.whole > to) each.whole = {};
  }
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
    found.group.in_parts.clear();
    found.group.log = truncates ? GroupLog(record.group_lsn, record.fencing_epoch)
                                : GroupLog(Lsn{record.group_lsn.value - 1}, record.previous_epoch);
  }
  if (truncates) return found.group.truncate(std::max(record.group_lsn, found.group.log.base()));
  OFFPRINT_ASSERT(record.group_lsn.value == found.group.log.last().value + 1);
  found.group.append(record.fencing_epoch, record.location, record.kind, record.metadata);
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
