// Logs of replicated groups: their numbers are given, committed is what the group says.
#include <cstdlib>
#include <random>

#include <gtest/gtest.h>

#include "base/fault_file_system.h"
#include "journal/journal.h"
#include "journal/journal_test_util.h"

namespace offprint::journal {
namespace {

constexpr std::uint32_t kGroup = 7;

Draft replicated(std::uint64_t lsn, std::uint32_t epoch, Kind kind = Kind::kTransaction) {
  Draft draft = test_draft(kind == Kind::kTransaction ? test_payload(lsn, 10) : Bytes{});
  draft.kind = kind;
  draft.group = kGroup;
  draft.group_lsn = Lsn{lsn};
  draft.fencing_epoch = Epoch{epoch};
  return draft;
}

Draft promise(std::uint32_t epoch) {
  Draft draft = replicated(0, epoch, Kind::kPromise);
  draft.group_lsn.reset();
  return draft;
}

TEST(JournalGroups, NumbersAreTheOnesGiven) {
  FaultFileSystem files;
  auto opened = open_journal(files);
  OFFPRINT_ASSERT_OK(opened);
  Journal& journal = *opened->journal;
  OFFPRINT_EXPECT_CODE(journal.append(replicated(2, 1)), Code::kInvalid);
  Draft without = replicated(1, 1);
  without.group_lsn.reset();
  OFFPRINT_EXPECT_CODE(journal.append(std::move(without)), Code::kInvalid);
  Draft local = test_draft(Bytes(10));
  local.group_lsn = Lsn{1};
  OFFPRINT_EXPECT_CODE(journal.append(std::move(local)), Code::kInvalid);
  OFFPRINT_ASSERT_OK(journal.commit(replicated(1, 1)));
  OFFPRINT_EXPECT_CODE(journal.append(replicated(1, 1)), Code::kInvalid);
  auto second = journal.commit(replicated(2, 3));
  OFFPRINT_ASSERT_OK(second);
  auto record = journal.read(*second);
  OFFPRINT_ASSERT_OK(record);
  EXPECT_EQ(record->group_lsn, Lsn{2});
  EXPECT_EQ(record->previous_epoch, Epoch{1});
  EXPECT_EQ(record->commit_lsn, Lsn{0}) << "durable is not committed";
  EXPECT_EQ(journal.group(kGroup), (GroupState{Lsn{2}, Lsn{0}, Epoch{3}, Epoch{0}}));
}

TEST(JournalGroups, WhatIsCommittedStaysAndTheRestMayGo) {
  FaultFileSystem files;
  {
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    Journal& journal = *opened->journal;
    for (std::uint64_t i = 1; i <= 5; ++i) OFFPRINT_ASSERT_OK(journal.commit(replicated(i, 1)));
    journal.set_commit(kGroup, Lsn{3});
    OFFPRINT_EXPECT_CODE(journal.append(replicated(2, 1, Kind::kTruncate)), Code::kInvalid);
    OFFPRINT_ASSERT_OK(journal.commit(replicated(4, 1, Kind::kTruncate)));
    OFFPRINT_ASSERT_OK(journal.commit(replicated(5, 2)));
    EXPECT_EQ(journal.group(kGroup), (GroupState{Lsn{5}, Lsn{3}, Epoch{2}, Epoch{0}}));
  }
  auto opened = open_journal(files);
  OFFPRINT_ASSERT_OK(opened);
  EXPECT_EQ(opened->journal->group(kGroup), (GroupState{Lsn{5}, Lsn{3}, Epoch{2}, Epoch{0}}));
  ASSERT_EQ(opened->records.size(), 7U);
  EXPECT_EQ(opened->records[5].kind, Kind::kTruncate);
  EXPECT_EQ(opened->records[5].group_lsn, Lsn{4});
  EXPECT_EQ(opened->records[6].commit_lsn, Lsn{3});
}

TEST(JournalGroups, OneMayBeginWhereAnotherNodeIs) {
  FaultFileSystem files;
  {
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    Journal& journal = *opened->journal;
    OFFPRINT_ASSERT_OK(journal.commit(replicated(1000, 3, Kind::kTruncate)));
    OFFPRINT_EXPECT_CODE(journal.append(replicated(2000, 3, Kind::kTruncate)), Code::kInvalid);
    OFFPRINT_EXPECT_CODE(journal.append(replicated(1, 3)), Code::kInvalid);
    OFFPRINT_ASSERT_OK(journal.commit(replicated(1001, 4)));
  }
  auto opened = open_journal(files);
  OFFPRINT_ASSERT_OK(opened);
  EXPECT_EQ(opened->journal->group(kGroup), (GroupState{Lsn{1001}, Lsn{0}, Epoch{4}, Epoch{0}}));
  EXPECT_EQ(opened->records[1].previous_epoch, Epoch{3});
}

TEST(JournalGroups, TheirStateOutlivesTheirSegments) {
  FaultFileSystem files;
  {
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    Journal& journal = *opened->journal;
    OFFPRINT_ASSERT_OK(journal.commit(replicated(1, 3)));
    OFFPRINT_ASSERT_OK(journal.commit(promise(5)));
    journal.set_commit(kGroup, Lsn{1});
    for (int i = 0; i < 100; ++i) OFFPRINT_ASSERT_OK(journal.commit(test_draft(Bytes(3000))));
    OFFPRINT_ASSERT_OK(journal.remove_before(journal.end_lsn()));
    EXPECT_EQ(journal.segments().size(), 1u);
  }
  auto opened = open_journal(files);
  OFFPRINT_ASSERT_OK(opened);
  EXPECT_EQ(opened->journal->group(kGroup), (GroupState{Lsn{1}, Lsn{1}, Epoch{3}, Epoch{5}}));
  auto location = opened->journal->commit(replicated(2, 5));
  OFFPRINT_ASSERT_OK(location);
  auto record = opened->journal->read(*location);
  OFFPRINT_ASSERT_OK(record);
  EXPECT_EQ(record->commit_lsn, Lsn{1});
  EXPECT_EQ(record->previous_epoch, Epoch{3});
}

// Whatever a power loss leaves, the groups stand where the surviving records say.
TEST(JournalGroups, StandWhereTheSurvivingRecordsSay) {
  const char* rounds = std::getenv("OFFPRINT_TEST_ROUNDS");
  for (int round = 0; round < (rounds != nullptr ? std::atoi(rounds) : 30); ++round) {
    std::mt19937 random(static_cast<unsigned>(round));
    FaultFileSystem files;
    std::vector<GroupState> states{
        {}};  // after each record; the commit as it stands in that record
    std::size_t durable = 0;
    {
      auto opened = open_journal(files);
      OFFPRINT_ASSERT_OK(opened);
      Journal& journal = *opened->journal;
      std::optional<Location> last;
      for (int i = 0; i < 60; ++i) {
        GroupState state = journal.group(kGroup);
        std::uint32_t epoch = std::max(state.epoch.value, state.promised.value) + random() % 2;
        Result<Location> appended = fail(Code::kInvalid, "");
        switch (random() % 5) {
          case 0:
            appended = journal.append(promise(epoch));
            break;
          case 1:
            // Epochs do not matter here: the record says which one stays.
            appended = journal.append(replicated(
                state.commit.value + random() % (state.last.value - state.commit.value + 1),
                state.epoch.value, Kind::kTruncate));
            break;
          default:
            appended = journal.append(replicated(state.last.value + 1, epoch));
        }
        OFFPRINT_ASSERT_OK(appended);
        GroupState after = journal.group(kGroup);
        states.push_back(after);
        last = *appended;
        if (random() % 4 == 0) {
          OFFPRINT_ASSERT_OK(journal.wait_durable(*last));
          durable = states.size() - 1;
        }
        if (random() % 3 == 0) journal.set_commit(kGroup, Lsn{random() % (after.last.value + 1)});
      }
      files.power_loss(random());
    }
    files.restart();
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    std::size_t survived = opened->records.size();
    ASSERT_GE(survived, durable);
    GroupState found = opened->journal->group(kGroup);
    ASSERT_LT(survived, states.size());
    EXPECT_EQ(found.last, states[survived].last) << "round " << round;
    EXPECT_EQ(found.epoch, states[survived].epoch);
    EXPECT_EQ(found.promised, states[survived].promised);
    EXPECT_EQ(found.commit, states[survived].commit);
  }
}

}  // namespace
}  // namespace offprint::journal
