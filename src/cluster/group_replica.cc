// A group's member as a replica: following a primary, and becoming one.
#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "cluster/group_member.h"

namespace offprint::cluster {

void GroupMember::receive_append(Time now, MemberId from, const Append& append, Effects& effects) {
  if (append.epoch < promised_ && !drops(Mutant::kAcceptStaleEpoch)) {  // R1
    effects.send(from, Nack{Nack::Reason::kStaleEpoch, promised_, {}, {}});
    return;
  }
  // R7: whoever asked to be primary, or gave it away, takes nothing of older epochs until it knows.
  bool gated = cas_ && (cas_->kind == Cas::Kind::kElect || cas_->kind == Cas::Kind::kHandOver);
  if (gated && append.epoch < cas_->next.epoch && !drops(Mutant::kNoGate)) return;
  if (is_primary_) {
    if (append.epoch <= epoch_) return;
    step_down(now, effects);
  }
  if (append.epoch > promised_) persist_promise(append.epoch, effects);
  if (append.epoch > accepted_) {
    accepted_ = append.epoch;
    matched_ = std::min(commit_, log_.last());
    answer_due_ = false;
    answer_sent_at_ = Time{};
  }
  if (promised_to_ != from) effects.changed();
  promised_to_ = from;
  // What a dead primary sent before it died promises nothing any more.
  const bool is_over = from == released_.primary && append.epoch <= released_.epoch;
  if (!is_over) promise_until_ = now + options_.timing.grace;
  answer_epoch_ = append.epoch;
  answer_sent_at_ = std::max(answer_sent_at_, append.sent_at);
  if (damaged_) {
    effects.send(from, Nack{Nack::Reason::kDamaged, append.epoch, {}, {}});
    return;
  }
  Lsn last = log_.last();
  if (!extend(from, append, effects)) return;
  lacks_records_ = false;
  note_commit(append.commit, effects);
  if (log_.last() != last) {
    answer_due_ = true;  // when it is durable
  } else {
    acknowledge(from, effects);
  }
}

// The log becomes the primary's as far as the message goes. False: answered already.
bool GroupMember::extend(MemberId from, const Append& append, Effects& effects) {
  bool is_gap = append.previous > log_.last();
  if (is_gap ||
      (append.previous >= log_.base() && log_.epoch_at(append.previous) != append.previous_epoch)) {
    Lsn meets = is_gap ? log_.last() : log_.newest_of(append.previous, append.previous_epoch);
    effects.send(from, Nack{Nack::Reason::kGap, append.epoch, meets, log_.epoch_at(meets)});
    return false;
  }
  if (!cut(from, append, effects)) return false;
  Lsn end = append.end();
  if (end > log_.last()) {
    Lsn after = log_.last();
    end = effects.store(++last_command_, after, append.runs);
    OFFPRINT_ASSERT(after <= end && end <= append.end());
    for (const EpochRun& run : append.runs) {
      if (run.last > log_.last() && run.first <= end)
        log_.append(run.epoch, std::min(run.last, end));
    }
    undurable_.push_back({last_command_, log_.last()});
  }
  matched_ = std::max(matched_, end);
  if (end < append.end()) effects.send(from, Nack{Nack::Reason::kNoSpace, append.epoch, {}, {}});
  return end == append.end();
}

// The primary's log begins after `nack.lsn`, a record that may not be in this one.
void GroupMember::note_lack(const Nack& nack, Effects& effects) {
  if (nack.reason != Nack::Reason::kGap || nack.epoch < promised_) return;
  const bool has = nack.lsn < log_.base() ||
                   (nack.lsn <= log_.last() && log_.epoch_at(nack.lsn) == nack.lsn_epoch);
  if (has || std::exchange(lacks_records_, true)) return;
  effects.changed();
}

// Drops records that the primary does not have. False: one of them was committed.
bool GroupMember::cut(MemberId from, const Append& append, Effects& effects) {
  Lsn to = log_.last();
  if (Lsn conflict = log_.first_conflict(append.runs); conflict.value != 0)
    to = Lsn{conflict.value - 1};
  // What the primary has from `start` on was written in its own epoch.
  if (append.start.value != 0 && append.start <= to && append.start > log_.base() &&
      log_.epoch_at(append.start) != append.epoch) {
    to = Lsn{append.start.value - 1};
  }
  if (drops(Mutant::kTruncateSameEpoch)) to = std::min(to, std::max(append.end(), log_.base()));
  if (to == log_.last()) return true;
  if (to < commit_) {  // R10
    damaged_ = true;
    effects.changed();
    effects.send(from, Nack{Nack::Reason::kDamaged, append.epoch, {}, {}});
    return false;
  }
  OFFPRINT_ASSERT(to >= matched_ || drops(Mutant::kTruncateSameEpoch) ||
                  drops(Mutant::kAcceptStaleEpoch));
  log_.truncate(to);
  durable_ = std::min(durable_, to);
  matched_ = std::min(matched_, to);
  for (Undurable& each : undurable_) each.end = std::min(each.end, to);
  undurable_.push_back({++last_command_, to});
  effects.truncate(last_command_, to);
  return true;
}

void GroupMember::acknowledge(MemberId to, Effects& effects) {
  if (durable_command_ < promise_command_) {  // R1: the promise is on the disk first
    answer_due_ = true;
    return;
  }
  answer_due_ = durable_ < matched_;  // once more when the rest is durable
  effects.send(to, Ack{answer_epoch_, answer_sent_at_, std::min(durable_, matched_)});
}

void GroupMember::note_commit(Lsn commit, Effects& effects) {
  commit_ = std::max(commit_, std::min(commit, matched_));
  tell_committed(effects);
}

void GroupMember::tell_committed(Effects& effects) {
  Lsn lsn = std::min(commit_, durable_);
  if (lsn <= told_commit_) return;
  told_commit_ = lsn;
  effects.committed(lsn);
}

void GroupMember::persist_promise(Epoch epoch, Effects& effects) {
  promised_ = epoch;
  promise_command_ = ++last_command_;
  undurable_.push_back({last_command_, log_.last()});
  effects.promise(last_command_, epoch);
}

// R13: of that member nobody acts any more in these epochs.
void GroupMember::receive_release(Time now, MemberId from, const Release& release,
                                  Effects& effects) {
  if (from != release.primary) return;
  if (released_.primary != from || released_.epoch < release.epoch) released_ = release;
  if (is_primary_ || promised_to_ != from) return;
  if (promised_ > release.epoch) return;  // it is of an earlier process
  promise_until_ = patience_until_ = now;
  try_election(now, effects);
}

// Candidates come one after the other, in the record's order.
Time GroupMember::stagger() const {
  Time wait{};
  for (MemberId member : view_.in_sync) {
    if (member == options_.self) break;
    if (member != view_.primary) wait += options_.timing.stagger;
  }
  return wait;
}

void GroupMember::try_election(Time now, Effects& effects) {
  if (cas_ || damaged_ || reading_ || now < next_attempt_) return;
  if (now < promise_until_ && !drops(Mutant::kAdoptWhilePromised)) return;
  if (now < promise_until_ + stagger() && view_.primary != options_.self) return;
  if (now < patience_until_) return;
  ask_for_record(now, effects);
}

// The record was read just now.
void GroupMember::stand(Time now, Effects& effects) {
  if (cas_ || damaged_) return;
  bool is_free = now >= promise_until_;
  if (view_.primary == options_.self && view_.epoch > promised_) {  // R9
    if (is_free || drops(Mutant::kAdoptWhilePromised)) become_primary(now, view_, effects);
    return;
  }
  if (!is_free || now < promise_until_ + stagger() || now < patience_until_) return;
  if (!contains(view_.in_sync, options_.self) && !drops(Mutant::kAnyoneIsEligible)) return;  // R6
  Cas cas{Cas::Kind::kElect, view_, options_.self};
  cas.next.epoch = Epoch{view_.epoch.value + 1};  // R8: never an epoch that it may have acted in
  cas.next.primary = options_.self;
  if (drops(Mutant::kAnyoneIsEligible) && !contains(view_.in_sync, options_.self))
    cas.next.in_sync.push_back(options_.self);
  change_record(now, std::move(cas), effects);
  effects.changed();
}

}  // namespace offprint::cluster
