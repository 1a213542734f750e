#pragma once

#include <algorithm>

#include "cluster/group_member.h"

namespace offprint::cluster {

// Hands a message out as numbers; times as they are seen at `now`, as far as they matter with this
// lease.
template <class Put>
void describe(const Message& message, Time now, Time lease, Put put) {
  auto age = [&](Time at) { put(static_cast<std::uint64_t>(std::min(now - at, lease).count())); };
  put(message.index());
  if (const auto* append = std::get_if<Append>(&message)) {
    put(append->epoch.value);
    age(append->sent_at);
    put(append->start.value);
    put(append->previous.value);
    put(append->previous_epoch.value);
    put(append->runs.size());
    for (const EpochRun& run : append->runs) {
      put(run.epoch.value);
      put(run.last.value);
    }
    put(append->commit.value);
  } else if (const auto* ack = std::get_if<Ack>(&message)) {
    put(ack->epoch.value);
    age(ack->sent_at);
    put(ack->durable.value);
  } else if (const auto* nack = std::get_if<Nack>(&message)) {
    put(static_cast<std::uint64_t>(nack->reason));
    put(nack->epoch.value);
    put(nack->lsn.value);
    put(nack->lsn_epoch.value);
  } else if (const auto* go = std::get_if<Go>(&message)) {
    put(go->epoch.value);
  } else if (const auto* release = std::get_if<Release>(&message)) {
    put(release->primary.value);
    put(release->epoch.value);
  }
}

template <class Put>
void describe(const Members& members, Put put) {
  put(members.size());
  for (MemberId member : members) put(member.value);
}

template <class Put>
void describe(const GroupView& view, Put put) {
  put(view.version);
  put(view.epoch.value);
  put(view.primary.value);
  describe(view.in_sync, put);
}

template <class Put>
void describe(const GroupLog& log, Put put) {
  put(log.last().value);
  for (std::uint64_t i = 1; i <= log.last().value; ++i) put(log.epoch_at(Lsn{i}).value);
}

// Sees all of a member's state.
struct GroupMemberProbe {
  const GroupMember& member;

  bool damaged() const { return member.damaged_; }
  Lsn commit() const { return member.commit_; }
  // Everything that decides what the member does from now on, as numbers; times as far as they
  // matter.
  template <class Put>
  void describe(Time now, Put put) const {
    const GroupMember& m = member;
    const GroupMember::Timing& timing = m.options_.timing;
    // How far ahead, and how far behind up to `limit`.
    auto time = [&](Time at, Time limit) {
      put(static_cast<std::uint64_t>(std::max(at - now, -limit).count()));
    };
    cluster::describe(m.log_, put);
    put(m.promised_.value);
    put(m.released_.primary.value);
    put(m.released_.epoch.value);
    put(m.last_command_ - m.durable_command_);
    put(m.durable_.value);
    for (const auto& each : m.undurable_) {
      put(each.command - m.durable_command_);
      put(each.end.value);
    }
    cluster::describe(m.view_, put);
    for (bool flag : {m.view_uncertain_, m.reading_, m.answer_due_, m.is_primary_, m.damaged_}) {
      put(flag);
    }
    time(m.next_attempt_, Time{});
    put(m.cas_ ? 1 + static_cast<std::uint64_t>(m.cas_->kind) : 0);
    if (m.cas_) {
      cluster::describe(m.cas_->next, put);
      put(m.cas_->about.value);
    }
    put(m.commit_.value);
    put(m.told_commit_.value);
    if (!m.is_primary_) {
      put(m.accepted_.value);
      put(m.matched_.value);
      put(m.promised_to_.value);
      time(m.promise_until_, timing.stagger * 2);
      time(m.patience_until_, Time{});
      put(m.answer_epoch_.value);
      put(static_cast<std::uint64_t>(
          std::clamp(now - m.answer_sent_at_, Time{}, timing.lease).count()));
      put(m.promise_command_ - std::min(m.promise_command_, m.durable_command_));
      return;
    }
    if (m.doubt_version_ == m.view_.version) time(m.read_at_, timing.lease);
    put(m.epoch_.value);
    put(m.start_.value);
    put(m.recovery_end_.value);
    put(m.acts_from_ - std::min(m.acts_from_, m.durable_command_));
    cluster::describe(m.pending_, put);
    for (const auto& each : m.peers_) {
      put(each.member.value);
      put(each.sent.value);
      put(each.durable.value);
      time(each.lease_until, Time{});
      time(each.answered_at, timing.eject);
      time(each.progress_at, timing.eject);
      put(each.answered);
    }
    time(m.next_beacon_, Time{});
    Time lost = now - m.leased_at_;
    while (lost >= 7 * timing.lease) lost -= 4 * timing.lease;  // what is_silent() looks at
    put(static_cast<std::uint64_t>(lost.count()));
  }
};

}  // namespace offprint::cluster
