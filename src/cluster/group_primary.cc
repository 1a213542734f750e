// A group's member as its primary.
#include <algorithm>

#include "base/assert.h"
#include "cluster/group_member.h"

namespace offprint::cluster {

void GroupMember::become_primary(Time now, const GroupView& view, Effects& effects) {
  OFFPRINT_ASSERT(view.epoch > promised_ && view.epoch > log_.last_epoch());
  is_primary_ = true;
  epoch_ = accepted_ = view.epoch;
  view_ = view;
  view_uncertain_ = false;
  doubt_version_ = 0;
  recovery_end_ = matched_ = log_.last();
  start_ = Lsn{log_.last().value + 1};
  // On the disk before anybody hears of it: after a crash the epoch is not taken up again (R8).
  persist_promise(epoch_, effects);
  acts_from_ = promise_command_;
  if (drops(Mutant::kActsBeforeDurable)) effects.acts_in(epoch_);
  promised_to_ = options_.self;
  answer_due_ = false;
  pending_.clear();
  peers_.clear();
  make_peers(now);
  next_beacon_ = leased_at_ = now;
  effects.changed();
}

// It counts as having made no progress since then, and the record may say so at once.
void GroupMember::note_silence(MemberId member, Time since) {
  Peer* found = peer(member);
  if (found == nullptr) return;
  found->progress_at = std::min(found->progress_at, since);
  next_attempt_ = std::min(next_attempt_, found->progress_at + options_.timing.eject);
}

void GroupMember::step_down(Time now, Effects& effects) {
  is_primary_ = false;
  view_uncertain_ = false;
  pending_.clear();
  peers_.clear();
  promised_to_ = {};
  promise_until_ = now + options_.timing.grace;  // somebody else has it: let him
  effects.changed();
}

// The record is this one.
void GroupMember::settle(Time now, const GroupView& view, Effects& effects) {
  if (view.version < view_.version) return;
  if (view.epoch != epoch_ || view.primary != options_.self) {
    view_ = view;
    return step_down(now, effects);
  }
  if (view.version != view_.version) pending_.clear();  // R4: it moved without them
  view_ = view;
  view_uncertain_ = false;
  make_peers(now);
  try_commit(now, effects);
  effects.changed();
}

GroupMember::Peer* GroupMember::peer(MemberId member) {
  auto found = std::ranges::find(peers_, member, &Peer::member);
  return found == peers_.end() ? nullptr : &*found;
}
const GroupMember::Peer* GroupMember::peer(MemberId member) const {
  auto found = std::ranges::find(peers_, member, &Peer::member);
  return found == peers_.end() ? nullptr : &*found;
}

// One for each other replica and member in sync.
void GroupMember::make_peers(Time now) {
  Members members = view_.replicas;
  for (MemberId member : must_have()) {
    if (!contains(members, member) && members.size() < members.capacity())
      members.push_back(member);
  }
  auto gone = std::remove_if(peers_.begin(), peers_.end(),
                             [&](const Peer& each) { return !contains(members, each.member); });
  peers_.erase(gone, peers_.end());
  for (MemberId member : members) {
    if (member == options_.self || peer(member) != nullptr) continue;
    Peer fresh;
    fresh.member = member;
    fresh.sent = log_.last();
    fresh.progress_at = now;
    peers_.push_back(fresh);
  }
}

// R2, R4, R5: in sync by what is known, and those who may be by what is not.
Members GroupMember::must_have() const {
  Members members = without(view_.in_sync, options_.self);
  if (!drops(Mutant::kCommitWithoutPending)) {
    for (MemberId member : pending_) {
      if (!contains(members, member) && members.size() < members.capacity())
        members.push_back(member);
    }
  }
  if (drops(Mutant::kExcludeBeforeCas) && cas_ && cas_->kind == Cas::Kind::kShrink)
    members = without(members, cas_->about);
  return members;
}

bool GroupMember::holds_leases(Time now) const {
  std::size_t held = 0;
  Members members = must_have();
  for (MemberId member : members) {
    const Peer* found = peer(member);
    if (found != nullptr && found->lease_until > now) ++held;
  }
  if (drops(Mutant::kLeaseOfMajority)) return held + 1 > (members.size() + 1) / 2;
  return held == members.size();
}

bool GroupMember::may_answer(Time now) const {  // R11
  if (!is_primary_ || !acts() || damaged_) return false;
  if (!is_recovered() && !drops(Mutant::kReadBeforeRecovery)) return false;
  return view_.in_sync.size() >= view_.min_in_sync && holds_leases(now);
}

// Too few are in sync, or one of them has not been heard of for a lease.
bool GroupMember::is_blocked(Time now) const {
  if (view_.in_sync.size() < view_.min_in_sync) return true;
  return now - leased_at_ > options_.timing.lease && !holds_leases(now);
}

std::optional<GroupMember::Proposal> GroupMember::propose(Time now) {
  if (!is_primary_ || !acts() || damaged_) return std::nullopt;
  if (!is_recovered() && !drops(Mutant::kCommitBeforeRecovery)) return std::nullopt;
  if (is_blocked(now)) return std::nullopt;
  Lsn lsn{log_.last().value + 1};
  log_.append(epoch_, lsn);
  matched_ = lsn;
  undurable_.push_back({++last_command_, lsn});
  return Proposal{lsn, epoch_, last_command_};
}

void GroupMember::withdraw(const Proposal& proposal) {
  OFFPRINT_ASSERT(proposal.lsn == log_.last() && proposal.command == last_command_);
  log_.truncate(Lsn{proposal.lsn.value - 1});
  matched_ = log_.last();
  undurable_.pop_back();
  --last_command_;
}

void GroupMember::flush(Time now, Effects& effects) {
  for (Peer& each : peers_) send_to(now, each, false, effects);
}

void GroupMember::send_to(Time now, Peer& to, bool beacon, Effects& effects) {
  if (!acts()) return;
  Append append;
  append.epoch = epoch_;
  append.sent_at = now;
  append.start = start_;
  append.commit = commit_;
  bool is_told = false;
  Lsn limit = std::min(log_.last(), Lsn{to.durable.value + options_.window_records});
  while (to.sent < limit && !to.no_space) {
    if (to.sent < log_.base()) {
      if (beacon) tell_lack(to.member, effects);
      break;
    }
    append.previous = to.sent;
    append.previous_epoch = log_.epoch_at(to.sent);
    append.runs = log_.runs(to.sent, limit);
    Lsn sent = effects.send_records(to.member, append);
    if (sent <= to.sent) break;
    to.sent = sent;
    is_told = true;
  }
  if (is_told || !beacon) return;
  append.runs.clear();
  append.previous = std::max(to.sent, log_.base());
  append.previous_epoch = log_.epoch_at(append.previous);
  effects.send(to.member, append);
}

void GroupMember::tell_lack(MemberId to, Effects& effects) {
  effects.needs_fill(to);
  effects.send(to, Nack{Nack::Reason::kGap, epoch_, log_.base(), log_.epoch_at(log_.base())});
}

void GroupMember::send_beacons(Time now, Effects& effects) {
  for (Peer& each : peers_) send_to(now, each, true, effects);
  next_beacon_ = now + options_.timing.beacon;
}

void GroupMember::receive_ack(Time now, MemberId from, const Ack& ack, Effects& effects) {
  Peer* found = is_primary_ && ack.epoch == epoch_ ? peer(from) : nullptr;
  if (found == nullptr || ack.durable > log_.last() || ack.sent_at > now) return;
  found->answered = true;
  found->no_space = false;
  found->answered_at = now;
  if (ack.durable > found->durable) {
    found->durable = ack.durable;
    found->progress_at = now;
  }
  found->sent = std::max(found->sent, found->durable);
  if (found->durable >= durable_) found->progress_at = now;
  Time since = drops(Mutant::kLeaseFromReceipt) ? now : ack.sent_at;  // R12
  found->lease_until = std::max(found->lease_until, since + options_.timing.lease);
  if (holds_leases(now)) leased_at_ = now;
  try_commit(now, effects);
  if (is_primary_ && !is_recovered()) lead(now, effects);  // it may be the last that was waited for
  if (is_primary_) send_to(now, *found, false, effects);
}

void GroupMember::receive_nack(Time now, MemberId from, const Nack& nack, Effects& effects) {
  if (!is_primary_) return note_lack(nack, effects);
  if (nack.reason == Nack::Reason::kStaleEpoch) {
    if (nack.epoch > epoch_) ask_for_record(now, effects);
    return;
  }
  Peer* found = nack.epoch == epoch_ ? peer(from) : nullptr;
  if (found == nullptr) return;
  if (nack.reason != Nack::Reason::kGap) {  // no use waiting for it
    found->no_space = true;
    found->progress_at = std::min(found->progress_at, now - options_.timing.eject);
    return lead(now, effects);
  }
  Lsn meets = log_.newest_of(nack.lsn, nack.lsn_epoch);
  if (nack.lsn < log_.base()) return tell_lack(from, effects);
  found->sent = std::max(meets, found->durable);
  send_to(now, *found, true, effects);
}

// R2.
void GroupMember::try_commit(Time now, Effects& effects) {
  if (!acts() || view_.in_sync.size() < view_.min_in_sync) return;
  Lsn commit = durable_;
  for (MemberId member : must_have()) {
    const Peer* found = peer(member);
    commit = std::min(commit, found != nullptr ? found->durable : Lsn{});
  }
  if (commit < recovery_end_ && !drops(Mutant::kCommitBeforeRecovery)) return;
  if (commit <= commit_) return;
  bool was_recovered = is_recovered();
  commit_ = commit;
  tell_committed(effects);
  if (!was_recovered) effects.changed();
  for (Peer& each : peers_) send_to(now, each, true, effects);
}

Lsn GroupMember::durable_at(MemberId member) const {
  if (member == options_.self) return durable_;
  const Peer* found = peer(member);
  return found != nullptr ? found->durable : Lsn{};
}

// Beacons renew promises. If answers do not come back for long, the others get a chance to choose
// somebody else: silence for three leases, then one of beacons again.
bool GroupMember::is_silent(Time now) const {
  Time lost = now - leased_at_;
  if (lost < 3 * options_.timing.lease) return false;
  return (lost / options_.timing.lease) % 4 != 2;
}

void GroupMember::lead(Time now, Effects& effects) {
  if (!is_primary_ || !acts()) return;
  if (holds_leases(now)) leased_at_ = now;
  if (now >= next_attempt_ && !cas_) {
    bool late = doubt_version_ == view_.version && now - read_at_ >= options_.timing.lease;
    bool doubtful = view_uncertain_ || late || now - leased_at_ > options_.timing.lease;
    if (!view_uncertain_ && (try_shrink(now, effects) || try_expand(now, effects))) {
      doubtful = false;
    }
    if (doubtful) ask_for_record(now, effects);
  }
  if (is_primary_ && now >= next_beacon_ && !is_silent(now)) send_beacons(now, effects);
}

// R3: the record first; who is left out counts until it says so. Nobody is left out while that
// would help nobody: with too few others, of whom one may be the first to come back, and he would
// not be one of those that are waited for any more.
bool GroupMember::try_shrink(Time now, Effects& effects) {
  Members late;
  for (MemberId member : must_have()) {
    const Peer* found = peer(member);
    if (found == nullptr || now - found->progress_at >= options_.timing.eject) {
      late.push_back(member);
    } else if (!found->answered) {
      return false;  // whether it is there is not known yet
    }
  }
  if (late.empty()) return false;
  std::size_t left = view_.in_sync.size();
  for (MemberId member : late) left -= contains(view_.in_sync, member) ? 1 : 0;
  if (left < view_.min_in_sync) return false;
  Cas cas{Cas::Kind::kShrink, view_, late.front()};
  cas.next.in_sync = without(view_.in_sync, late.front());
  change_record(now, std::move(cas), effects);
  return true;
}

// R4: it counts before the record says so.
bool GroupMember::try_expand(Time now, Effects& effects) {
  if (!is_recovered()) return false;
  for (MemberId member : view_.replicas) {
    if (member == options_.self || contains(view_.in_sync, member)) continue;
    Peer* found = peer(member);
    if (found == nullptr || !found->answered || found->no_space || found->durable < commit_)
      continue;
    if (now - found->answered_at >= options_.timing.eject) continue;
    if (view_.in_sync.size() == view_.in_sync.capacity()) continue;
    if (!contains(pending_, member)) pending_.push_back(member);
    found->progress_at = now;
    Cas cas{Cas::Kind::kExpand, view_, member};
    cas.next.in_sync.push_back(member);
    change_record(now, std::move(cas), effects);
    return true;
  }
  return false;
}

bool GroupMember::hand_over(Time now, MemberId to, Effects& effects) {
  const Peer* found = is_primary_ ? peer(to) : nullptr;
  if (found == nullptr || cas_ || view_uncertain_ || !acts() || !is_recovered()) return false;
  if (!contains(view_.in_sync, to) || found->durable != log_.last() || commit_ != log_.last())
    return false;
  Cas cas{Cas::Kind::kHandOver, view_, to};
  cas.next.epoch = Epoch{epoch_.value + 1};
  cas.next.primary = to;
  step_down(now, effects);
  promise_until_ = now;  // to nobody; the gate holds until the outcome is known
  change_record(now, std::move(cas), effects);
  return true;
}

}  // namespace offprint::cluster
