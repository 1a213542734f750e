#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "cluster/coordinator.h"
#include "cluster/group_index.h"
#include "cluster/group_member.h"
#include "cluster/group_record.h"
#include "cluster/parts.h"
#include "cluster/peer_wire.h"
#include "journal/journal.h"

namespace offprint::cluster {

// Carries messages to the other members. Thread: any. Must not call the log back from within.
class PeerTransport {
 public:
  virtual ~PeerTransport() = default;
  // Puts it on its way, or loses it later. False: the member cannot be reached, or too much is
  // under way to it.
  virtual bool send(MemberId to, const PeerMessage& message) = 0;
};

// Told what happens to the groups' logs, under a lock of the log: be quick, call nothing here.
class LogListener {
 public:
  virtual ~LogListener() = default;
  // Records of the group up to here are committed, and in this node's journal.
  virtual void committed(std::uint32_t group, Lsn lsn) = 0;
  // What the member is, or may do, has changed.
  virtual void changed(std::uint32_t group) = 0;
};

// The logs of all placement groups on this node: the protocol's members, at work on the node's
// journal, the network and the coordinator.
//
// A write: append() takes a place for a record in the group's log, gives it to the journal and
// sends it; wait() returns when it is committed. Records of other nodes come through received().
// Thread: any.
class ReplicatedLog {
 public:
  struct Options {
    std::string cluster;
    RecordMember self;
    std::uint32_t groups = 32;  // numbered from 0; in the journal from 1
    GroupMember::Timing timing{};
    int tick_ms = 10;
    int coordinator_timeout_ms = 1000;
    // The journal failed: nothing may go on.
    std::function<void(const Error&)> on_fatal;
    // Effects::acts_in(). Under a lock of the log: be quick, call nothing here. May be empty.
    std::function<void(std::uint32_t group, Epoch)> acts_in = {};
  };
  // The journal was opened with `index` as its visitor. `journal`, `transport` and `listener`
  // outlive it; nobody calls received() while it ends.
  ReplicatedLog(Options options, journal::Journal& journal, GroupIndex index,
                std::unique_ptr<Coordinator> coordinator, PeerTransport& transport,
                LogListener& listener);
  ~ReplicatedLog();
  // Ends what waits with kUnknown, and all work of its own; append() answers kUnavailable from then
  // on. The destructor does it too.
  void shut_down();

  // --- of the primary
  struct Appended {
    std::uint32_t group = 0;
    GroupMember::Proposal proposal;
    journal::Location location;
  };
  // Gives `draft` (of whatever group) the next place in the group's log. kNotPrimary: another node
  // writes here, or this one but in another epoch than `only_in`; kUnavailable: nobody can at the
  // moment; kFull, kTooLarge: as the journal says. After an error nothing has happened.
  Result<Appended> append(std::uint32_t group, journal::Draft draft,
                          std::optional<Epoch> only_in = {});
  // Blocks until it is committed. kUnknown: it may have been, or may still be: this node has
  // stopped being primary, or the deadline has passed.
  Result<> wait(const Appended& appended, Deadline deadline);
  // Whether what was read before this call is what a linearizable read may answer.
  bool may_answer(std::uint32_t group);
  // Hands the group to a member in sync that has all of it. kUnavailable: not now.
  Result<> hand_over(std::uint32_t group, const RecordMember& to);

  // This node is to stop: it acknowledges nothing more, so that primaries leave it out of those
  // that they wait for, where enough others are left.
  void leave() { leaving_ = true; }

  // --- from outside
  void received(MemberId from, PeerMessage message);
  // The connection to it is a new one.
  void connected(MemberId member);

  struct Status {
    GroupMember::Status member;
    GroupRecord record;        // as last read or written
    Epoch last_epoch;          // of the newest record; 0: none was written in the cluster
    Lsn found;                 // of what the journal had when it was opened, what is still there
    bool lacks_parts = false;  // of a transaction's payload, which are not kept any more
  };
  Status status(std::uint32_t group);
  // Keeps the records after the newest one that is committed, and the parts of transactions that
  // are not, until let_go(). kNotPrimary.
  struct Held {
    std::uint32_t group = 0;
    Lsn lsn;      // the one before those
    Epoch epoch;  // in which it was written
    Epoch term;   // of this primary
  };
  Result<Held> hold(std::uint32_t group);
  void let_go(const Held& held);
  // Where the journal's first record is that is held, or whose fate is not decided; nothing: there
  // is none. What stands before it may be removed once it was applied …
  std::optional<journal::Lsn> needed_from();
  // … and then must be forgotten here. Members that lack it need whole databases from then on.
  void forget_before(journal::Lsn lsn);
  // Where a record is; kNotFound: it is not kept any more, or not there.
  Result<journal::Location> find(std::uint32_t group, Lsn lsn);

 private:
  class GroupEffects;
  struct Fresh {
    Lsn lsn;
    std::shared_ptr<const PeerRecord> record;
  };
  // Of wait(): woken when its record is committed, or may never be.
  struct Waiter {
    Lsn lsn;
    bool woken = false;
    std::condition_variable wake;
  };
  struct Group {
    Group(std::uint32_t which, IndexedGroup in_journal, const GroupMember::Options& options,
          Time now, journal::Journal& journal)
        : number(which),
          index(std::move(in_journal)),
          found(index.log.last()),
          member(options, {index.log, index.promised, index.commit, false}, now),
          parts(journal) {}
    const std::uint32_t number;
    std::mutex mutex;
    // --- guarded by mutex
    IndexedGroup index;
    Lsn found;  // see Status
    GroupMember member;
    GroupRecord record;        // as last read or written
    GroupRecord asked_for;     // by the swap under way
    std::uint64_t hinted = 0;  // newest version of the record that the coordinator spoke of
    Time look_at{};            // when it is read again if it is not that new yet
    std::deque<Fresh> fresh;   // appended here, perhaps not written yet
    std::size_t fresh_bytes = 0;
    const PeerMessage* receiving = nullptr;
    std::vector<Waiter*> waiters;
    std::multiset<Lsn> held;
    bool lacks_parts = false;  // see Status
    Parts parts;               // its sync() without mutex
  };
  struct ToSync {
    Command command = 0;
    journal::Location location;
  };

  void sync_later(std::uint32_t group, Command command, const journal::Location& location);
  void run_sync();
  void run_ticks();
  void take_view(std::uint32_t group, Result<std::optional<RegisterEntry>> found);
  void take_swap(std::uint32_t group, const SwapResult& result);
  void take_hint(const RegisterHint& hint);
  void look_for_hinted(Group& group, Time now);
  static GroupView view_of(const RegisterEntry& entry, const GroupRecord& record);
  Deadline deadline() const;  // of the coordinator's answers
  Result<std::shared_ptr<const PeerRecord>> record_of(Group& group, Lsn lsn);
  static void keep_fresh(Group& group, Fresh fresh);
  static void wake(Group& group, Lsn up_to);
  void fatal(const Error& error);

  const Options options_;
  const RecordKeys keys_;
  journal::Journal& journal_;
  PeerTransport& transport_;
  LogListener& listener_;
  std::vector<std::unique_ptr<Group>> groups_;

  std::mutex mutex_;  // taken after a group's
  std::condition_variable wake_sync_, wake_ticks_;
  std::atomic<bool> ended_ = false;
  std::atomic<bool> leaving_ = false;
  // --- guarded by mutex_
  std::vector<ToSync> to_sync_;  // by group; a command of 0: nothing
  bool has_to_sync_ = false;
  bool stopping_ = false;

  std::thread syncer_, ticker_;
  const std::unique_ptr<Coordinator>
      coordinator_;  // last: its callbacks use the rest until it ends
};

// CLOCK_BOOTTIME: goes on while the machine sleeps.
Time boot_time();

}  // namespace offprint::cluster
