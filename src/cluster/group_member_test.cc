#include "cluster/group_member.h"

#include <vector>

#include <gtest/gtest.h>

namespace offprint::cluster {
namespace {

using Role = GroupMember::Role;
constexpr MemberId kA{1}, kB{2}, kC{3};

struct Sent {
  MemberId to;
  Message message;
};

// Keeps what the member wanted, until it is looked at.
class Wanted final : public Effects {
 public:
  Lsn send_records(MemberId to, const Append& message) override {
    sent.push_back({to, message});
    return message.end();
  }
  void send(MemberId to, const Message& message) override { sent.push_back({to, message}); }
  void needs_fill(MemberId member) override { fills.push_back(member); }
  Lsn store(Command command, Lsn after, const EpochRuns& runs) override {
    last_command = command;
    return std::max(after, std::min(runs.back().last, room));
  }
  void truncate(Command command, Lsn to) override {
    last_command = command;
    cuts.push_back(to);
  }
  void promise(Command command, Epoch) override { last_command = command; }
  void read_record() override { ++reads; }
  void compare_and_swap(const GroupView& next) override { changes.push_back(next); }
  void committed(Lsn lsn) override { commit = lsn; }
  void changed() override { ++news; }
  void acts_in(Epoch epoch) override { acted = epoch; }

  // The newest message of this kind to `to`.
  template <class T>
  std::optional<T> last(MemberId to) const {
    for (auto each = sent.rbegin(); each != sent.rend(); ++each) {
      if (each->to == to && std::holds_alternative<T>(each->message))
        return std::get<T>(each->message);
    }
    return std::nullopt;
  }

  std::vector<Sent> sent;
  std::vector<MemberId> fills;
  std::vector<Lsn> cuts;
  std::vector<GroupView> changes;
  int reads = 0;
  int news = 0;
  Epoch acted;
  Command last_command = 0;
  Lsn commit;
  Lsn room{1000};  // of the disk
};

GroupView view_of(std::uint64_t version, Epoch epoch, MemberId primary, Members in_sync,
                  std::uint32_t min_in_sync = 2) {
  return {version, epoch, primary, std::move(in_sync), {kA, kB, kC}, min_in_sync};
}

GroupLog log_of(std::initializer_list<std::uint32_t> epochs) {
  GroupLog log;
  for (std::uint32_t epoch : epochs) log.append(Epoch{epoch}, Lsn{log.last().value + 1});
  return log;
}

// A member at work, whose disk is as fast as can be.
struct Member {
  explicit Member(MemberId self, GroupLog log = GroupLog{}, Epoch promised = {})
      : member({.self = self}, {.log = std::move(log), .promised = promised, .commit = {}},
               Time{}) {}

  void receive(MemberId from, const Message& message) {
    member.receive(now, from, message, wanted);
    sync();
  }
  void sync() { member.on_durable(now, wanted.last_command, wanted); }
  void tick() {
    member.tick(now, wanted);
    sync();
  }
  Role role() const { return member.status(now).role; }
  // Waits out its promise, and is elected.
  void lead(const GroupView& record) {
    now += GroupMember::Timing{}.grace + GroupMember::Timing{}.stagger * 3;
    tick();
    member.on_view(now, record, wanted);
    ASSERT_EQ(role(), Role::kCandidate);
    member.on_cas(now, CasOutcome::kApplied, record.version + 1, wanted);
    sync();
  }
  void acknowledge(MemberId from, Lsn durable) {
    receive(from, Ack{member.status(now).epoch, now, durable});
  }
  void propose() {
    auto proposal = member.propose(now);
    ASSERT_TRUE(proposal);
    wanted.last_command = proposal->command;
    member.flush(now, wanted);
    sync();
  }

  Time now{10'000'000};
  Wanted wanted;
  GroupMember member;
};

Append append_of(Epoch epoch, Lsn previous, Epoch previous_epoch, EpochRuns runs, Lsn start,
                 Lsn commit = {}) {
  return {epoch, Time{1}, start, previous, previous_epoch, std::move(runs), commit};
}

TEST(GroupMemberTest, ACommitIsOnTheDiskOfAllInSync) {
  Member a(kA);
  a.lead(view_of(1, Epoch{0}, {}, {kA, kB, kC}));
  for (MemberId peer : {kB, kC}) a.acknowledge(peer, Lsn{0});
  EXPECT_EQ(a.role(), Role::kPrimary);
  a.propose();
  EXPECT_EQ(a.wanted.last<Append>(kB)->end(), Lsn{1});
  a.acknowledge(kB, Lsn{1});
  EXPECT_EQ(a.wanted.commit, Lsn{0}) << "one is missing";
  a.acknowledge(kC, Lsn{1});
  EXPECT_EQ(a.wanted.commit, Lsn{1});
  EXPECT_EQ(a.wanted.last<Append>(kB)->commit, Lsn{1}) << "it is told at once";
}

// Else its commit would wait for the next beacon.
TEST(GroupMemberTest, ABeaconOnItsWayDoesNotCostAnAcknowledgement) {
  Member b(kB);
  const EpochRuns one{{Epoch{1}, Lsn{1}, Lsn{1}}};
  b.member.receive(b.now, kA, append_of(Epoch{1}, Lsn{0}, Epoch{0}, one, Lsn{1}), b.wanted);
  b.member.receive(b.now, kA, append_of(Epoch{1}, Lsn{1}, Epoch{1}, {}, Lsn{1}), b.wanted);
  const auto before = b.wanted.last<Ack>(kA);
  EXPECT_TRUE(!before || before->durable == Lsn{0}) << "nothing is on the disk yet";
  b.sync();
  ASSERT_TRUE(b.wanted.last<Ack>(kA));
  EXPECT_EQ(b.wanted.last<Ack>(kA)->durable, Lsn{1});
  // And with one that comes when the promise is on the disk already.
  const EpochRuns two{{Epoch{1}, Lsn{2}, Lsn{2}}};
  b.member.receive(b.now, kA, append_of(Epoch{1}, Lsn{1}, Epoch{1}, two, Lsn{1}), b.wanted);
  b.member.receive(b.now, kA, append_of(Epoch{1}, Lsn{2}, Epoch{1}, {}, Lsn{1}), b.wanted);
  EXPECT_EQ(b.wanted.last<Ack>(kA)->durable, Lsn{1});
  b.sync();
  EXPECT_EQ(b.wanted.last<Ack>(kA)->durable, Lsn{2});
}

TEST(GroupMemberTest, NothingIsWrittenBeforeTheOthersHaveTheLog) {
  Member a(kA, log_of({1, 1}), Epoch{1});
  a.lead(view_of(4, Epoch{1}, kB, {kA, kB}));
  EXPECT_EQ(a.role(), Role::kRecovering);
  EXPECT_FALSE(a.member.propose(a.now));
  EXPECT_FALSE(a.member.may_answer(a.now));
  a.acknowledge(kB, Lsn{1});
  EXPECT_EQ(a.role(), Role::kRecovering);
  a.acknowledge(kB, Lsn{2});
  EXPECT_EQ(a.role(), Role::kPrimary);
  EXPECT_EQ(a.wanted.commit, Lsn{2});
  EXPECT_TRUE(a.member.may_answer(a.now));
}

// Nobody has to look for it: there is nothing to recover, and it writes once its promise is
// durable.
TEST(GroupMemberTest, ItIsToldWhenAPrimaryMayWrite) {
  Member a(kA);
  a.now += GroupMember::Timing{}.grace + GroupMember::Timing{}.stagger * 3;
  a.tick();
  a.member.on_view(a.now, view_of(1, Epoch{1}, kB, {kA, kB}), a.wanted);
  a.member.on_cas(a.now, CasOutcome::kApplied, 2, a.wanted);
  ASSERT_FALSE(a.member.status(a.now).leads);
  const int before = a.wanted.news;
  a.sync();
  EXPECT_TRUE(a.member.status(a.now).leads);
  EXPECT_GT(a.wanted.news, before);
}

TEST(GroupMemberTest, TheLeaseCountsFromWhenTheQuestionWasSent) {
  Member a(kA);
  a.lead(view_of(1, Epoch{0}, {}, {kA, kB}));
  Time asked = a.now;
  a.now += Time{900'000};
  a.receive(kB, Ack{Epoch{1}, asked, Lsn{0}});
  EXPECT_TRUE(a.member.may_answer(a.now));
  a.now = asked + GroupMember::Timing{}.lease;
  EXPECT_FALSE(a.member.may_answer(a.now));
}

TEST(GroupMemberTest, WhoDoesNotAnswerIsLeftOutByTheRecordFirst) {
  Member a(kA);
  a.lead(view_of(1, Epoch{0}, {}, {kA, kB, kC}));
  for (MemberId peer : {kB, kC}) a.acknowledge(peer, Lsn{0});
  a.propose();
  a.acknowledge(kB, Lsn{1});
  a.now += GroupMember::Timing{}.eject;
  a.acknowledge(kB, Lsn{1});
  a.tick();
  ASSERT_EQ(a.wanted.changes.size(), 2U);
  EXPECT_EQ(a.wanted.changes.back().in_sync, (Members{kA, kB}));
  EXPECT_EQ(a.wanted.commit, Lsn{0});
  a.member.on_cas(a.now, CasOutcome::kApplied, 3, a.wanted);
  EXPECT_EQ(a.wanted.commit, Lsn{1});

  // Never below the least number: then it stands still instead.
  a.now += GroupMember::Timing{}.eject * 2;
  a.tick();
  EXPECT_EQ(a.wanted.changes.size(), 2U);
  EXPECT_EQ(a.role(), Role::kBlocked);
  EXPECT_FALSE(a.member.propose(a.now)) << "refused before anything was done";
}

TEST(GroupMemberTest, AFullDiskDoesNotHoldTheOthersUp) {
  Member a(kA);
  a.lead(view_of(1, Epoch{0}, {}, {kA, kB, kC}));
  for (MemberId peer : {kB, kC}) a.acknowledge(peer, Lsn{0});
  a.propose();
  a.receive(kC, Nack{Nack::Reason::kNoSpace, Epoch{1}, {}, {}});
  a.now += GroupMember::Timing{}.cas_every;
  a.tick();
  ASSERT_EQ(a.wanted.changes.size(), 2U);
  EXPECT_EQ(a.wanted.changes.back().in_sync, (Members{kA, kB}));
}

TEST(GroupMemberTest, AReplicaTakesWhatItsDiskHasRoomFor) {
  Member b(kB);
  b.wanted.room = Lsn{2};
  b.receive(kA, append_of(Epoch{1}, Lsn{0}, Epoch{0}, {{Epoch{1}, Lsn{1}, Lsn{4}}}, Lsn{1}));
  EXPECT_EQ(b.wanted.last<Nack>(kA)->reason, Nack::Reason::kNoSpace);
  EXPECT_EQ(b.member.log(), log_of({1, 1}));
  b.wanted.room = Lsn{9};
  b.receive(kA, append_of(Epoch{1}, Lsn{2}, Epoch{1}, {{Epoch{1}, Lsn{3}, Lsn{4}}}, Lsn{1}));
  EXPECT_EQ(b.wanted.last<Ack>(kA)->durable, Lsn{4});
}

TEST(GroupMemberTest, WhatCouldNotBeJournaledWasNeverThere) {
  Member a(kA);
  a.lead(view_of(1, Epoch{0}, {}, {kA, kB}));
  a.acknowledge(kB, Lsn{0});
  auto proposal = a.member.propose(a.now);
  ASSERT_TRUE(proposal);
  a.member.withdraw(*proposal);
  EXPECT_EQ(a.member.log().last(), Lsn{0});
  a.propose();
  EXPECT_EQ(a.wanted.last<Append>(kB)->runs[0].last, Lsn{1});
}

TEST(GroupMemberTest, AReplicaTakesTheLogOfItsPrimary) {
  Member b(kB, log_of({1, 1, 1, 2}), Epoch{2});
  // The primary of epoch 3 has 1,1,3: it asks about its end first.
  b.receive(kA, append_of(Epoch{3}, Lsn{3}, Epoch{3}, {}, Lsn{3}));
  auto nack = b.wanted.last<Nack>(kA);
  ASSERT_TRUE(nack);
  EXPECT_EQ(nack->lsn, Lsn{3});
  EXPECT_EQ(nack->lsn_epoch, Epoch{1});
  b.receive(kA,
            append_of(Epoch{3}, Lsn{2}, Epoch{1}, {{Epoch{3}, Lsn{3}, Lsn{3}}}, Lsn{3}, Lsn{2}));
  EXPECT_EQ(b.wanted.cuts, (std::vector<Lsn>{Lsn{2}}));
  EXPECT_EQ(b.member.log(), log_of({1, 1, 3}));
  EXPECT_EQ(b.wanted.last<Ack>(kA)->durable, Lsn{3});
  EXPECT_EQ(b.wanted.commit, Lsn{2});
  // Older epochs are refused from then on.
  b.receive(kC, append_of(Epoch{2}, Lsn{3}, Epoch{3}, {}, Lsn{4}));
  EXPECT_EQ(b.wanted.last<Nack>(kC)->reason, Nack::Reason::kStaleEpoch);
}

TEST(GroupMemberTest, WhatWasCommittedIsNeverCut) {
  Member b(kB, log_of({1, 1}), Epoch{1});
  b.receive(kA, append_of(Epoch{1}, Lsn{2}, Epoch{1}, {}, Lsn{1}, Lsn{2}));
  EXPECT_EQ(b.wanted.commit, Lsn{2});
  b.receive(kC, append_of(Epoch{2}, Lsn{1}, Epoch{1}, {{Epoch{2}, Lsn{2}, Lsn{2}}}, Lsn{2}));
  EXPECT_EQ(b.role(), Role::kDamaged);
  EXPECT_EQ(b.wanted.last<Nack>(kC)->reason, Nack::Reason::kDamaged);
  EXPECT_EQ(b.member.log(), log_of({1, 1}));
}

TEST(GroupMemberTest, AGuardiansWordEndsAPromise) {
  // Also one of an epoch before: whoever acted in 4 does not act in 1 any more.
  for (std::uint32_t epoch : {1U, 4U}) {
    Member b(kB);
    b.receive(kA, append_of(Epoch{1}, Lsn{0}, Epoch{0}, {}, Lsn{1}));
    b.tick();
    EXPECT_EQ(b.wanted.reads, 0);
    b.receive(kA, Release{kA, Epoch{epoch}});
    EXPECT_EQ(b.wanted.reads, 1);
    b.member.on_view(b.now, view_of(2, Epoch{4}, kA, {kA, kB, kC}), b.wanted);
    ASSERT_EQ(b.wanted.changes.size(), 1U);
    EXPECT_EQ(b.wanted.changes[0].primary, kB);
    EXPECT_EQ(b.wanted.changes[0].epoch, Epoch{5});
    EXPECT_EQ(b.wanted.changes[0].in_sync, (Members{kA, kB, kC})) << "nothing else is changed";
    // The dead one is left out as soon as the other one is heard of, and not after a second.
    b.member.on_cas(b.now, CasOutcome::kApplied, 3, b.wanted);
    b.sync();
    EXPECT_EQ(b.wanted.changes.size(), 1U);
    b.acknowledge(kC, Lsn{0});
    b.tick();
    ASSERT_EQ(b.wanted.changes.size(), 2U);
    EXPECT_EQ(b.wanted.changes[1].in_sync, (Members{kB, kC}));
    EXPECT_EQ(b.wanted.changes[1].version, 3U);
  }
}

// Its last messages may come after the word of its death.
TEST(GroupMemberTest, WhatADeadPrimarySentRenewsNoPromise) {
  Member b(kB);
  const EpochRuns one{{Epoch{2}, Lsn{1}, Lsn{1}}};
  b.receive(kA, append_of(Epoch{2}, Lsn{0}, Epoch{0}, {}, Lsn{1}));
  b.receive(kA, Release{kA, Epoch{2}});
  b.receive(kA, append_of(Epoch{2}, Lsn{0}, Epoch{0}, one, Lsn{1}));
  EXPECT_EQ(b.member.log().last(), Lsn{1}) << "it is taken as ever";
  b.member.on_view(b.now, view_of(2, Epoch{2}, kA, {kA, kB}), b.wanted);
  EXPECT_EQ(b.wanted.changes.size(), 1U);
  // But the next process of that member is another one.
  Member c(kC);
  c.receive(kA, append_of(Epoch{2}, Lsn{0}, Epoch{0}, {}, Lsn{1}));
  c.receive(kA, Release{kA, Epoch{2}});
  c.receive(kA, append_of(Epoch{3}, Lsn{0}, Epoch{0}, {}, Lsn{1}));
  c.member.on_view(c.now, view_of(3, Epoch{3}, kA, {kA, kC}), c.wanted);
  EXPECT_TRUE(c.wanted.changes.empty());
}

// It may come late, when the member has begun anew, or from somebody who has no say.
TEST(GroupMemberTest, AGuardiansWordIsOfOneProcess) {
  struct Case {
    const char* what;
    MemberId from;
    Release release;
  };
  for (const Case& each :
       {Case{"an earlier process", kA, {kA, Epoch{4}}}, Case{"another member", kC, {kC, Epoch{5}}},
        Case{"by another one", kC, {kA, Epoch{5}}}}) {
    Member b(kB);
    b.receive(kA, append_of(Epoch{5}, Lsn{0}, Epoch{0}, {}, Lsn{1}));
    b.now += GroupMember::Timing{}.grace / 2;
    b.receive(each.from, each.release);
    b.tick();
    EXPECT_EQ(b.wanted.reads, 0) << each.what;
    b.member.on_view(b.now, view_of(2, Epoch{5}, kA, {kA, kB}), b.wanted);
    EXPECT_TRUE(b.wanted.changes.empty()) << each.what;
  }
  // Who has just begun does not know to whom it promised.
  Member c(kC, GroupLog{}, Epoch{5});
  c.now = Time{};
  c.receive(kA, Release{kA, Epoch{5}});
  EXPECT_EQ(c.wanted.reads, 0);
  // And a primary goes on.
  Member a(kA);
  a.lead(view_of(1, Epoch{0}, {}, {kA, kB}));
  a.receive(kA, Release{kA, Epoch{1}});
  EXPECT_TRUE(a.member.is_primary());
}

// What a guardian may say: of that epoch nobody but this process ever acts, for its promise is on
// the disk; and it knows before anybody else hears of it.
TEST(GroupMemberTest, AnEpochIsSaidToActBeforeAnythingOfItLeaves) {
  Member a(kA);
  a.now += GroupMember::Timing{}.grace + GroupMember::Timing{}.stagger * 3;
  a.tick();
  a.member.on_view(a.now, view_of(1, Epoch{7}, kB, {kA, kB}), a.wanted);
  a.member.on_cas(a.now, CasOutcome::kApplied, 2, a.wanted);
  a.member.tick(a.now, a.wanted);
  EXPECT_EQ(a.wanted.acted, Epoch{0}) << "its promise is not on the disk: another may take it up";
  EXPECT_TRUE(a.wanted.sent.empty());
  a.sync();
  EXPECT_EQ(a.wanted.acted, Epoch{8});
  EXPECT_FALSE(a.wanted.sent.empty());
}

// Of a primary that fell silent the next one knows that no answer will come.
TEST(GroupMemberTest, ThePrimaryThatWasNotHeardForAGraceIsNotWaitedForAgain) {
  Member b(kB);
  b.receive(kA, append_of(Epoch{1}, Lsn{0}, Epoch{0}, {}, Lsn{1}));
  b.lead(view_of(2, Epoch{1}, kA, {kA, kB, kC}));
  EXPECT_EQ(b.wanted.changes.size(), 1U) << "the other one may be gone, too";
  b.acknowledge(kC, Lsn{0});
  b.tick();
  ASSERT_EQ(b.wanted.changes.size(), 2U);
  EXPECT_EQ(b.wanted.changes[1].in_sync, (Members{kB, kC}));
  // But of two copies, of which both are wanted, none is left out.
  Member c(kC);
  c.receive(kA, append_of(Epoch{1}, Lsn{0}, Epoch{0}, {}, Lsn{1}));
  c.lead(view_of(2, Epoch{1}, kA, {kA, kC}));
  EXPECT_EQ(c.wanted.changes.size(), 1U);
}

// Of two that are silent one may come back: leaving out one of them alone would help nobody, and
// the one that comes back would not be the one that is waited for.
TEST(GroupMemberTest, NobodyIsLeftOutWhileTooFewWouldBeLeft) {
  Member b(kB);
  b.receive(kA, append_of(Epoch{1}, Lsn{0}, Epoch{0}, {}, Lsn{1}));
  GroupView view = view_of(2, Epoch{1}, kA, {kA, kB, kC});
  view.min_in_sync = 2;
  b.lead(view);
  ASSERT_EQ(b.wanted.changes.size(), 1U);
  b.now += 2 * GroupMember::Timing{}.eject;
  b.tick();
  EXPECT_EQ(b.wanted.changes.size(), 1U);
  b.now += GroupMember::Timing{}.cas_every;
  b.acknowledge(kA, Lsn{0});
  b.tick();
  ASSERT_EQ(b.wanted.changes.size(), 2U);
  EXPECT_EQ(b.wanted.changes[1].in_sync, (Members{kA, kB}));
}

TEST(GroupMemberTest, AGroupIsHandedOver) {
  Member a(kA), b(kB);
  a.lead(view_of(1, Epoch{0}, {}, {kA, kB}));
  b.receive(kA, *a.wanted.last<Append>(kB));
  EXPECT_FALSE(a.member.hand_over(a.now, kC, a.wanted)) << "it is not in sync";
  a.acknowledge(kB, Lsn{0});
  a.now += GroupMember::Timing{}.cas_every;
  ASSERT_TRUE(a.member.hand_over(a.now, kB, a.wanted));
  EXPECT_EQ(a.role(), Role::kDraining);
  EXPECT_FALSE(a.member.may_answer(a.now));
  GroupView after = a.wanted.changes.back();
  a.member.on_cas(a.now, CasOutcome::kApplied, 3, a.wanted);
  b.receive(kA, *a.wanted.last<Go>(kB));
  EXPECT_EQ(b.wanted.reads, 1);
  after.version = 3;
  b.member.on_view(b.now, after, b.wanted);
  b.sync();
  EXPECT_TRUE(b.member.is_primary());
}

TEST(GroupMemberTest, APrimaryThatNobodyAnswersFallsSilentForAWhile) {
  Member a(kA);
  a.lead(view_of(1, Epoch{0}, {}, {kA, kB}));
  std::size_t quiet = 0, loud = 0;
  for (int i = 0; i < 200; ++i) {
    a.now += GroupMember::Timing{}.beacon;
    std::size_t before = a.wanted.sent.size();
    a.tick();
    ++(a.wanted.sent.size() == before ? quiet : loud);
  }
  EXPECT_GT(quiet, 100U);
  EXPECT_GT(loud, 50U);
}

TEST(GroupMemberTest, ALogThatIsNotKeptAnyMoreIsAskedForWhole) {
  GroupLog log = log_of({1, 1, 1, 1});
  log.forget(Lsn{3});
  Member a(kA, log, Epoch{1});
  a.lead(view_of(1, Epoch{1}, kB, {kA, kB}));
  a.receive(kC, Nack{Nack::Reason::kGap, Epoch{2}, Lsn{1}, Epoch{1}});
  EXPECT_EQ(a.wanted.fills, (std::vector<MemberId>{kC}));
}

TEST(GroupMemberTest, NonsenseIsNotBelieved) {
  Member a(kA);
  a.lead(view_of(1, Epoch{0}, {}, {kA, kB}));
  a.receive(kB, Ack{Epoch{1}, a.now, Lsn{77}});
  a.receive(kB, Ack{Epoch{1}, a.now + Time{1'000'000'000}, Lsn{0}});
  a.receive(MemberId{99}, Ack{Epoch{1}, a.now, Lsn{0}});
  EXPECT_FALSE(a.member.may_answer(a.now));
  EXPECT_EQ(a.wanted.commit, Lsn{0});
}

}  // namespace
}  // namespace offprint::cluster
