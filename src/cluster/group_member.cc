// A group's member: what comes in, and what becomes of it.
#include "cluster/group_member.h"

#include <algorithm>

#include "base/assert.h"

namespace offprint::cluster {

GroupMember::GroupMember(const Options& options, const Recovered& recovered, Time now)
    : options_(options),
      log_(recovered.log),
      promised_(std::max(recovered.promised, recovered.log.last_epoch())),
      damaged_(recovered.damaged),
      durable_(recovered.log.last()),
      commit_(std::min(recovered.commit, recovered.log.last())),
      told_commit_(commit_),
      promise_until_(now) {
  // R8: what it promised before is not known any more.
  if (!drops(Mutant::kNoBootWait)) promise_until_ = now + options_.timing.grace;
}

void GroupMember::receive(Time now, MemberId from, const Message& message, Effects& effects) {
  if (const auto* append = std::get_if<Append>(&message)) {
    receive_append(now, from, *append, effects);
  } else if (const auto* ack = std::get_if<Ack>(&message)) {
    receive_ack(now, from, *ack, effects);
  } else if (const auto* nack = std::get_if<Nack>(&message)) {
    receive_nack(now, from, *nack, effects);
  } else if (const auto* go = std::get_if<Go>(&message)) {
    if (is_primary_ || promised_to_ != from || promised_ != go->epoch) return;
    promise_until_ = patience_until_ = now;
    ask_for_record(now, effects);
  } else if (const auto* release = std::get_if<Release>(&message)) {
    receive_release(now, from, *release, effects);
  }
}

void GroupMember::tick(Time now, Effects& effects) {
  if (is_primary_) {
    lead(now, effects);
  } else {
    try_election(now, effects);
  }
}

void GroupMember::on_durable(Time now, Command command, Effects& effects) {
  if (command <= durable_command_) return;
  const bool could_act = acts();
  durable_command_ = command;
  while (!undurable_.empty() && undurable_.front().command <= command) {
    durable_ = std::max(durable_, undurable_.front().end);
    undurable_.pop_front();
  }
  if (is_primary_) {
    if (!could_act && acts()) {
      // R13: after its promise is on the disk, before anything of it leaves.
      if (!drops(Mutant::kActsBeforeDurable)) effects.acts_in(epoch_);
      effects.changed();
    }
    try_commit(now, effects);
    lead(now, effects);
    return;
  }
  tell_committed(effects);
  if (answer_due_) acknowledge(promised_to_, effects);
}

void GroupMember::on_view(Time now, const GroupView& view, Effects& effects) {
  reading_ = false;
  read_at_ = now;
  if (view.version < view_.version) return;
  if (is_primary_) return settle(now, view, effects);
  if (view.epoch > promised_ && view.epoch > view_.epoch && view_.version != 0 &&
      view.primary != options_.self) {
    patience_until_ = now + options_.timing.grace;  // it will be heard of soon
  }
  view_ = view;
  stand(now, effects);
}

void GroupMember::on_read_failed(Time now, Effects&) {
  reading_ = false;
  next_attempt_ = now + options_.timing.cas_every;
}

void GroupMember::on_cas(Time now, CasOutcome outcome, std::uint64_t version, Effects& effects) {
  if (!cas_) return;
  Cas cas = *std::move(cas_);
  cas_.reset();
  if (outcome == CasOutcome::kApplied) cas.next.version = version;
  next_attempt_ = std::max(next_attempt_, now);
  effects.changed();
  switch (cas.kind) {
    case Cas::Kind::kElect:
      if (outcome == CasOutcome::kApplied) {
        if (cas.next.version > view_.version) view_ = cas.next;
        if (promised_ >= cas.next.epoch) return;
        // Whom it followed has said nothing for a grace, or is dead: nobody waits for that one.
        const MemberId silent = promised_to_;
        const Time since = promise_until_ - options_.timing.grace;
        become_primary(now, cas.next, effects);
        note_silence(silent, since);
      } else if (outcome == CasOutcome::kUnknown) {
        promise_until_ = now + options_.timing.grace;  // R5: forgotten for good
      }
      return;
    case Cas::Kind::kHandOver:
      if (outcome == CasOutcome::kApplied) {
        if (cas.next.version > view_.version) view_ = cas.next;
        patience_until_ = now + options_.timing.grace;
        effects.send(cas.about, Go{Epoch{cas.next.epoch.value - 1}});
      } else if (outcome == CasOutcome::kUnknown) {
        promise_until_ = now + options_.timing.grace;
      }
      return;
    case Cas::Kind::kShrink:
    case Cas::Kind::kExpand:
      break;
  }
  if (!is_primary_ || cas.next.epoch != epoch_) return;
  if (outcome == CasOutcome::kApplied) return settle(now, cas.next, effects);
  if (outcome == CasOutcome::kFailed) return;
  view_uncertain_ = true;  // R5: both outcomes count until a newer version was read
  if (outcome == CasOutcome::kUnknown) doubt_version_ = cas.next.version;
  if (drops(Mutant::kForgetPending)) pending_.clear();
  ask_for_record(now, effects);
}

void GroupMember::on_connected(Time now, MemberId member, Effects& effects) {
  Peer* found = is_primary_ ? peer(member) : nullptr;
  if (found == nullptr) return;
  if (found->answered) found->sent = found->durable;
  send_to(now, *found, true, effects);
}

void GroupMember::forget(Lsn base) {
  OFFPRINT_ASSERT(base <= commit_);
  if (base > log_.base()) log_.forget(base);
}

void GroupMember::ask_for_record(Time now, Effects& effects) {
  if (reading_) return;
  reading_ = true;
  next_attempt_ = now + options_.timing.cas_every;
  effects.read_record();
}

void GroupMember::change_record(Time now, Cas cas, Effects& effects) {
  OFFPRINT_ASSERT(!cas_);
  next_attempt_ = now + options_.timing.cas_every;
  cas_ = std::move(cas);
  effects.compare_and_swap(cas_->next);
}

GroupMember::Status GroupMember::status(Time now) const {
  Status status;
  status.epoch = promised_;
  status.primary = is_primary_ ? options_.self : promised_to_;
  status.view = view_;
  status.last = log_.last();
  status.durable = durable_;
  status.commit = commit_;
  status.leads = is_primary_ && acts() && is_recovered() && !damaged_;
  status.start = start_;
  status.heard_at = promise_until_ - options_.timing.grace;
  status.lacks_records = lacks_records_;
  if (damaged_) {
    status.role = Role::kDamaged;
  } else if (is_primary_) {
    status.role = is_blocked(now)            ? Role::kBlocked
                  : acts() && is_recovered() ? Role::kPrimary
                                             : Role::kRecovering;
  } else if (cas_) {
    status.role = cas_->kind == Cas::Kind::kHandOver ? Role::kDraining : Role::kCandidate;
  } else {
    status.role = contains(view_.in_sync, options_.self) ? Role::kFollower : Role::kLearner;
  }
  return status;
}

}  // namespace offprint::cluster
