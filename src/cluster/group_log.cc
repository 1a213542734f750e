#include "cluster/group_log.h"

#include <algorithm>

#include "base/assert.h"

namespace offprint::cluster {

Epoch GroupLog::epoch_at(Lsn lsn) const {
  OFFPRINT_ASSERT(base_ <= lsn && lsn <= last_);
  for (auto start = starts_.rbegin(); start != starts_.rend(); ++start) {
    if (start->first <= lsn) return start->epoch;
  }
  return base_epoch_;
}

void GroupLog::append(Epoch epoch, Lsn last) {
  OFFPRINT_ASSERT(epoch >= last_epoch() && last >= last_);
  if (last == last_) return;
  if (starts_.empty() || starts_.back().epoch != epoch)
    starts_.push_back({epoch, {last_.value + 1}});
  last_ = last;
}

void GroupLog::truncate(Lsn to) {
  OFFPRINT_ASSERT(base_ <= to);
  if (to >= last_) return;
  while (!starts_.empty() && starts_.back().first > to) starts_.pop_back();
  last_ = to;
}

void GroupLog::forget(Lsn base) {
  OFFPRINT_ASSERT(base_ <= base && base <= last_);
  base_epoch_ = epoch_at(base);
  base_ = base;
  auto next = std::ranges::find_if(starts_, [&](const Start& start) { return start.first > base; });
  // The run that goes on after the base begins right after it.
  if (next != starts_.begin() &&
      (next == starts_.end() ? last_ : Lsn{next->first.value - 1}) > base) {
    --next;
    next->first = Lsn{base.value + 1};
  }
  starts_.erase(starts_.begin(), next);
}

Lsn GroupLog::newest_of(Lsn lsn, Epoch epoch) const {
  Lsn newest = std::min(lsn, last_);
  for (auto start = starts_.rbegin(); start != starts_.rend(); ++start) {
    if (start->first > newest) continue;
    if (start->epoch <= epoch) return std::max(newest, base_);
    newest = Lsn{start->first.value - 1};
  }
  return base_;
}

EpochRuns GroupLog::runs(Lsn after, Lsn last) const {
  EpochRuns runs;
  while (after < last && runs.size() < runs.capacity()) {
    Lsn first{after.value + 1};
    auto next =
        std::ranges::find_if(starts_, [&](const Start& start) { return start.first > first; });
    Lsn end = next == starts_.end() ? last : std::min(last, Lsn{next->first.value - 1});
    runs.push_back({epoch_at(first), first, end});
    after = end;
  }
  return runs;
}

Lsn GroupLog::first_conflict(const EpochRuns& runs) const {
  for (const EpochRun& run : runs) {
    Lsn lsn = std::max(run.first, Lsn{base_.value + 1});
    while (lsn <= run.last && lsn <= last_) {
      if (epoch_at(lsn) != run.epoch) return lsn;
      auto next =
          std::ranges::find_if(starts_, [&](const Start& start) { return start.first > lsn; });
      lsn = next == starts_.end() ? Lsn{last_.value + 1} : next->first;
    }
  }
  return {};
}

}  // namespace offprint::cluster
