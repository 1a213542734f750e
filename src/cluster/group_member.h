#pragma once

#include <cstdint>
#include <optional>

#include <boost/container/deque.hpp>

#include "cluster/group_log.h"
#include "cluster/mutants.h"
#include "cluster/protocol.h"

namespace offprint::cluster {

// A change of the journal that the protocol asked for: 1, 2, 3 … in the order in which they become
// durable.
using Command = std::uint64_t;

// What a member wants done. Called from within its methods; must not call it back.
class Effects {
 public:
  virtual ~Effects() = default;
  // Sends the message with its records. It may leave records away at the end (a limit on bytes);
  // answers the last one that goes out.
  virtual Lsn send_records(MemberId to, const Append& message) = 0;
  // Everything else, beacons too. What is lost is said again.
  virtual void send(MemberId to, const Message& message) = 0;
  // The copy ends before the records that this log still keeps, and was told so: it needs whole
  // databases, then GroupMember of the other side begins at a later base.
  virtual void needs_fill(MemberId member) = 0;

  // Takes into the journal those records of the message just received that follow on `after`.
  // Answers the last one that it took; less than all: the disk is full.
  virtual Lsn store(Command command, Lsn after, const EpochRuns& runs) = 0;
  virtual void truncate(Command command, Lsn to) = 0;
  virtual void promise(Command command, Epoch epoch) = 0;

  // Reads the group's record, linearizably; on_view() or on_read_failed() follows.
  virtual void read_record() = 0;
  // Writes `next` if the record's version is still next.version; on_cas() follows, once.
  virtual void compare_and_swap(const GroupView& next) = 0;

  // Records up to here are committed and on this disk: they may be applied.
  virtual void committed(Lsn lsn) = 0;
  // The role or what may be done in it changed: see status().
  virtual void changed() = 0;
  // From now on it acts as primary in that epoch, which is on its disk: no other process of this
  // member ever will. Nothing of the epoch has left before.
  virtual void acts_in(Epoch epoch) = 0;
};

// One member of one placement group: a pure state machine. It has no clock (each input says the
// time), no I/O (Effects), no threads and no randomness, so the server, the simulator and the
// explorer run this very object. Copies are independent.
// Thread: one at a time.
class GroupMember {
 public:
  // G >= L * (1 + 2 * drift) + slack: a promise outlives the lease that it backs.
  struct Timing {
    Time beacon{100'000};
    Time lease{1'000'000};    // L: from when the primary sent what was acknowledged
    Time grace{1'400'000};    // G: from when a replica heard of its primary
    Time eject{1'000'000};    // a replica in sync that makes no progress for so long is left out
    Time stagger{50'000};     // between candidates, by their order in the record
    Time cas_every{100'000};  // attempts at most so often
  };
  struct Options {
    MemberId self;
    Timing timing{};
    std::uint64_t window_records = 4096;  // sent and not acknowledged, to one replica
  };
  // What the journal says at start.
  struct Recovered {
    GroupLog log;
    Epoch promised;
    Lsn commit;
    bool damaged = false;  // the log has a hole: it may serve nobody, and never be primary
  };
  GroupMember(const Options& options, const Recovered& recovered, Time now);

  // --- inputs
  void receive(Time now, MemberId from, const Message& message, Effects& effects);
  // Time has passed. At least as often as a tenth of the beacon's interval, or at next_wakeup().
  void tick(Time now, Effects& effects);
  // All commands up to this one are on the disk.
  void on_durable(Time now, Command command, Effects& effects);
  // The record, as a linearizable read found it.
  void on_view(Time now, const GroupView& view, Effects& effects);
  void on_read_failed(Time now, Effects& effects);
  // `version`: of the record after an applied one.
  void on_cas(Time now, CasOutcome outcome, std::uint64_t version, Effects& effects);
  // Somebody says that the record has changed.
  void look_again(Time now, Effects& effects) { ask_for_record(now, effects); }
  // The connection to a member is a new one: what was under way is lost.
  void on_connected(Time now, MemberId member, Effects& effects);

  // Records up to `base`, all of them committed, are not kept any more.
  void forget(Lsn base);

  // --- of the primary
  struct Proposal {
    Lsn lsn;
    Epoch epoch;
    Command command = 0;  // appending it to the journal; on_durable() follows
  };
  // Takes a place for one more record. Nothing: nobody may write here now, or nothing could be
  // committed. The caller journals it at once, then calls flush().
  std::optional<Proposal> propose(Time now);
  // It could not be journaled. Before anything else.
  void withdraw(const Proposal& proposal);
  // Sends what was proposed.
  void flush(Time now, Effects& effects);
  // Whether what was read before this call is what a linearizable read may answer.
  bool may_answer(Time now) const;
  // Hands the group over when the other one has everything. False: that cannot be tried now.
  bool hand_over(Time now, MemberId to, Effects& effects);

  // --- what it is
  enum class Role : std::uint8_t {
    kLearner,     // a copy that no commit waits for
    kFollower,    // in sync
    kCandidate,   // asked to be primary; refuses older epochs until it knows
    kRecovering,  // primary; the others do not have all of its log yet
    kPrimary,
    kBlocked,   // primary; too few are in sync, or they do not answer
    kDraining,  // handed over, the outcome is not known yet
    kDamaged,
  };
  struct Status {
    Role role = Role::kLearner;
    Epoch epoch;       // promised
    MemberId primary;  // as last heard; {}: not known
    GroupView view;    // as last read
    Lsn last, durable, commit;
    // Primary, and all of its log from before its epoch, which begins at `start`, is committed.
    bool leads = false;
    Lsn start;
    Time heard_at{};  // of a replica: from its primary, or since it began
    // Of a replica: its primary has not the records any more that follow on its own.
    bool lacks_records = false;
  };
  Status status(Time now) const;
  const GroupLog& log() const { return log_; }
  bool is_primary() const { return is_primary_; }
  // Of the primary: what the replica has acknowledged in this epoch.
  Lsn durable_at(MemberId member) const;

 private:
  friend struct GroupMemberProbe;  // of tests: all of the state

  struct Peer {
    MemberId member;
    Lsn sent;     // records up to it are under way or there
    Lsn durable;  // acknowledged
    Time lease_until{};
    Time answered_at{};
    Time progress_at{};     // when it last was not in the way
    bool answered = false;  // in this epoch
    bool no_space = false;
  };
  struct Cas {
    enum class Kind : std::uint8_t { kElect, kShrink, kExpand, kHandOver };
    Kind kind;
    GroupView next;
    MemberId about;
  };
  struct Undurable {
    Command command;
    Lsn end;  // of the log after it
  };

  // --- replica (group_replica.cc)
  void receive_release(Time now, MemberId from, const Release& release, Effects& effects);
  void receive_append(Time now, MemberId from, const Append& append, Effects& effects);
  bool extend(MemberId from, const Append& append, Effects& effects);
  void note_lack(const Nack& nack, Effects& effects);
  bool cut(MemberId from, const Append& append, Effects& effects);
  void acknowledge(MemberId to, Effects& effects);
  void note_commit(Lsn commit, Effects& effects);
  void tell_committed(Effects& effects);
  void persist_promise(Epoch epoch, Effects& effects);
  void try_election(Time now, Effects& effects);
  void stand(Time now, Effects& effects);
  Time stagger() const;

  // --- primary (group_member.cc)
  void become_primary(Time now, const GroupView& view, Effects& effects);
  void note_silence(MemberId member, Time since);
  void step_down(Time now, Effects& effects);
  void receive_ack(Time now, MemberId from, const Ack& ack, Effects& effects);
  void receive_nack(Time now, MemberId from, const Nack& nack, Effects& effects);
  void try_commit(Time now, Effects& effects);
  void send_to(Time now, Peer& peer, bool beacon, Effects& effects);
  void tell_lack(MemberId to, Effects& effects);
  void send_beacons(Time now, Effects& effects);
  void lead(Time now, Effects& effects);
  bool try_shrink(Time now, Effects& effects);
  bool try_expand(Time now, Effects& effects);
  void change_record(Time now, Cas cas, Effects& effects);
  void settle(Time now, const GroupView& view, Effects& effects);
  void ask_for_record(Time now, Effects& effects);
  bool is_recovered() const { return commit_ >= recovery_end_; }
  bool acts() const { return durable_command_ >= acts_from_; }
  bool holds_leases(Time now) const;
  bool is_blocked(Time now) const;
  bool is_silent(Time now) const;
  Members must_have() const;
  Peer* peer(MemberId member);
  const Peer* peer(MemberId member) const;
  void make_peers(Time now);

  Options options_;
  // --- on the disk, as of the last command
  GroupLog log_;
  Epoch promised_;
  bool damaged_ = false;
  Command last_command_ = 0;
  // --- how far the disk is
  Command durable_command_ = 0;
  Lsn durable_;
  boost::container::deque<Undurable> undurable_;

  // --- in memory
  GroupView view_;
  bool view_uncertain_ = false;      // a change of ours may have happened, or still happen
  std::uint64_t doubt_version_ = 0;  // that change would be of this version of the record
  bool reading_ = false;
  Time read_at_{};
  Time next_attempt_{};
  std::optional<Cas> cas_;
  Lsn commit_;
  Lsn told_commit_;  // to Effects

  // Replica.
  Epoch accepted_;  // whose log this one follows …
  Lsn matched_;     // … and up to where it surely is the same
  MemberId promised_to_;
  Time promise_until_{};
  Time patience_until_{};  // somebody else was elected just now
  Release released_;       // the newest that was heard
  Epoch answer_epoch_;     // of the newest message to be acknowledged …
  Time answer_sent_at_{};  // … and when it was sent
  bool answer_due_ = false;
  bool lacks_records_ = false;
  Command promise_command_ = 0;

  // Primary.
  bool is_primary_ = false;
  Epoch epoch_;
  Lsn start_;  // first record of the epoch
  Lsn recovery_end_;
  Command acts_from_ = 0;  // the promise of its own epoch
  Members pending_;        // to be in sync: they count before the record says so
  boost::container::static_vector<Peer, kMembersMax> peers_;
  Time next_beacon_{};
  Time leased_at_{};  // when all leases were last held
};

}  // namespace offprint::cluster
