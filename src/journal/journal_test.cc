#include "journal/journal.h"

#include <cerrno>
#include <filesystem>

#include <gtest/gtest.h>

#include "journal/format.h"
#include "journal/journal_test_util.h"

namespace offprint::journal {
namespace {

TEST(Journal, RecordsComeBackAsTheyWereGiven) {
  FaultFileSystem files;
  std::vector<Location> locations;
  {
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    EXPECT_TRUE(opened->records.empty());
    for (std::uint64_t i = 0; i < 20; ++i) {
      Draft draft = test_draft(test_payload(i, i * 37), 100 + i);
      draft.kind = static_cast<Kind>(1 + i % 6);
      draft.fencing_epoch = Epoch{static_cast<std::uint32_t>(i / 5)};
      if (i % 3 == 0)
        draft.metadata.push_back({MetadataType::kDatabaseState, test_payload(1000 + i, i)});
      if (i % 4 == 0)
        draft.metadata.push_back({static_cast<MetadataType>(777), test_payload(2000 + i, 3)});
      auto location = opened->journal->commit(std::move(draft));
      OFFPRINT_ASSERT_OK(location);
      EXPECT_EQ(location->lsn.value % 8, 0u);
      EXPECT_EQ(location->size % 8, 0u);
      locations.push_back(*location);
      auto record = opened->journal->read(*location);
      OFFPRINT_ASSERT_OK(record);
      EXPECT_EQ(record->payload, test_payload(i, i * 37));
    }
    EXPECT_EQ(opened->journal->sync_count(), 20u);
  }
  auto opened = open_journal(files);
  OFFPRINT_ASSERT_OK(opened);
  ASSERT_EQ(opened->records.size(), 20u);
  for (std::uint64_t i = 0; i < 20; ++i) {
    const Record& record = opened->records[i];
    EXPECT_EQ(record.location.lsn, locations[i].lsn);
    EXPECT_EQ(record.location.size, locations[i].size);
    EXPECT_EQ(record.location.payload_size, i * 37);
    EXPECT_EQ(record.kind, static_cast<Kind>(1 + i % 6));
    EXPECT_EQ(record.database_id, 100 + i);
    EXPECT_EQ(record.group, kLocalGroup);
    EXPECT_EQ(record.group_lsn.value, i + 1);
    EXPECT_EQ(record.commit_lsn.value, i);
    EXPECT_EQ(record.fencing_epoch.value, i / 5);
    EXPECT_EQ(record.previous_epoch.value, i < 1 ? 0 : (i - 1) / 5);
    EXPECT_LE(record.durable_lsn, record.location.lsn);
    EXPECT_EQ(record.metadata.size(), (i % 3 == 0 ? 1u : 0u) + (i % 4 == 0 ? 1u : 0u));
    EXPECT_EQ(record.payload, test_payload(i, i * 37));
    auto again = read_all(*opened->journal, locations[i]);
    OFFPRINT_ASSERT_OK(again);
    EXPECT_EQ(*again, record.payload);
  }
}

TEST(Journal, GoesOnWhereItWas) {
  FaultFileSystem files;
  std::uint64_t count = 0;
  for (int round = 0; round < 30; ++round) {
    auto opened = open_journal(files, test_options(round % 2 == 0));
    OFFPRINT_ASSERT_OK(opened);
    ASSERT_EQ(opened->records.size(), count);
    for (std::uint64_t i = 0; i < count; ++i) {
      ASSERT_EQ(opened->records[i].payload, test_payload(i, i * 50 % 9000));
      ASSERT_EQ(opened->records[i].group_lsn.value, i + 1);
    }
    for (int i = 0; i < 7; ++i, ++count) {
      OFFPRINT_ASSERT_OK(
          opened->journal->commit(test_draft(test_payload(count, count * 50 % 9000))));
    }
  }
}

TEST(Journal, AppendWithoutWaitingIsReadableAndKeepsOrder) {
  FaultFileSystem files;
  auto opened = open_journal(files);
  OFFPRINT_ASSERT_OK(opened);
  auto first = opened->journal->append(test_draft(test_payload(1, 100)));
  auto second = opened->journal->append(test_draft(test_payload(2, 100)));
  OFFPRINT_ASSERT_OK(first);
  OFFPRINT_ASSERT_OK(second);
  EXPECT_EQ(second->lsn.value, first->lsn.value + first->size);
  EXPECT_LE(opened->journal->durable_lsn(), first->lsn);
  OFFPRINT_ASSERT_OK(opened->journal->wait_durable(*second));
  EXPECT_EQ(opened->journal->sync_count(), 1u);  // one for both
  OFFPRINT_ASSERT_OK(opened->journal->wait_durable(*first));
  EXPECT_EQ(opened->journal->sync_count(), 1u);
  auto third = opened->journal->append(test_draft(test_payload(3, 100)));
  OFFPRINT_ASSERT_OK(third);
  auto record = opened->journal->read(*third);
  OFFPRINT_ASSERT_OK(record);
  EXPECT_EQ(record->payload, test_payload(3, 100));
}

TEST(Journal, RefusesWhatItCannotHold) {
  FaultFileSystem files;
  auto opened = open_journal(files);
  OFFPRINT_ASSERT_OK(opened);
  Journal& journal = *opened->journal;
  OFFPRINT_EXPECT_CODE(journal.append(test_draft(Bytes(kTestSegment / 2))), Code::kTooLarge);
  OFFPRINT_ASSERT_OK(journal.commit(test_draft(Bytes(kTestSegment / 2 - kRecordHeaderSize))));
  Draft draft = test_draft({});
  draft.metadata.push_back({MetadataType::kLargePayload, Bytes(20)});
  OFFPRINT_EXPECT_CODE(journal.append(std::move(draft)), Code::kInvalid);
  draft = test_draft({});
  draft.large_file = "nowhere";
  OFFPRINT_EXPECT_CODE(journal.append(std::move(draft)), Code::kInvalid);
  OFFPRINT_EXPECT_CODE(journal.wait_durable({Lsn{1 << 20}, 100, 0, false}), Code::kInvalid);
  OFFPRINT_EXPECT_CODE(journal.read({Lsn{kSegmentHeaderBlock + 8}, 96, 0, false}), Code::kCorrupt);
  Options options = test_options();
  options.segment_size = 1000;
  OFFPRINT_EXPECT_CODE(open_journal(files, options, "other"), Code::kInvalid);
}

TEST(Journal, RecordsNeverSpanSegments) {
  FaultFileSystem files;
  std::vector<Location> locations;
  {
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    for (std::uint64_t i = 0; i < 400; ++i) {
      auto location = opened->journal->commit(test_draft(test_payload(i, 1 + i * 131 % 5000)));
      OFFPRINT_ASSERT_OK(location);
      EXPECT_EQ(location->lsn.value / kTestSegment,
                (location->lsn.value + location->size - 1) / kTestSegment);
      locations.push_back(*location);
    }
    std::vector<Segment> segments = opened->journal->segments();
    ASSERT_GT(segments.size(), 10u);
    for (std::size_t i = 1; i < segments.size(); ++i)
      EXPECT_EQ(segments[i].begin, segments[i - 1].end);
    EXPECT_EQ(segments.back().end, opened->journal->end_lsn());
    EXPECT_EQ(opened->journal->disk_bytes(), segments.size() * kTestSegment);
  }
  auto opened = open_journal(files);
  OFFPRINT_ASSERT_OK(opened);
  ASSERT_EQ(opened->records.size(), 400u);
  for (std::uint64_t i = 0; i < 400; ++i) {
    EXPECT_EQ(opened->records[i].location.lsn, locations[i].lsn);
    EXPECT_EQ(opened->records[i].payload, test_payload(i, 1 + i * 131 % 5000));
  }
}

// Fills segments with records of every size near the end, so that the rest is 0, 8, … bytes: with
// and without a filler.
TEST(Journal, EveryRestOfASegmentIsSkipped) {
  for (std::uint64_t rest = 0; rest <= 160; rest += 8) {
    FaultFileSystem files;
    {
      auto opened = open_journal(files);
      OFFPRINT_ASSERT_OK(opened);
      Journal& journal = *opened->journal;
      OFFPRINT_ASSERT_OK(journal.commit(test_draft(Bytes(kTestSegment / 2 - kRecordHeaderSize))));
      std::uint64_t room = kTestSegment - journal.end_lsn().value;
      OFFPRINT_ASSERT_OK(journal.commit(test_draft(Bytes(room - rest - kRecordHeaderSize))));
      EXPECT_EQ(journal.end_lsn().value, kTestSegment - rest);
      files.process_crash();
    }
    {
      auto opened = open_journal(files);
      OFFPRINT_ASSERT_OK(opened);
      ASSERT_EQ(opened->records.size(), 2u);
      auto location = opened->journal->commit(test_draft(test_payload(rest, 200)));
      OFFPRINT_ASSERT_OK(location);
      EXPECT_GT(location->lsn.value, kTestSegment);
      files.process_crash();
    }
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    ASSERT_EQ(opened->records.size(), 3u) << rest;
    EXPECT_EQ(opened->records[2].payload, test_payload(rest, 200));
    EXPECT_EQ(opened->records[2].group_lsn.value, 3u);
  }
}

TEST(Journal, FreedSegmentsAreReusedAndTheirRecordsNeverComeBack) {
  FaultFileSystem files;
  std::uint64_t count = 0;
  Lsn kept;
  for (int round = 0; round < 20; ++round) {
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    for (const Record& record : opened->records) {
      ASSERT_GE(record.location.lsn, kept);
      ASSERT_EQ(record.payload, test_payload(record.group_lsn.value, 3000));
    }
    if (!opened->records.empty()) {
      EXPECT_EQ(opened->records.back().group_lsn.value, count);
    }
    for (int i = 0; i < 50; ++i) {
      auto location = opened->journal->commit(test_draft(test_payload(++count, 3000)));
      OFFPRINT_ASSERT_OK(location);
      if (i == 40) kept = location->lsn;
    }
    OFFPRINT_ASSERT_OK(opened->journal->remove_before(kept));
    std::vector<Segment> segments = opened->journal->segments();
    EXPECT_LE(segments.front().begin, kept);
    EXPECT_GT(segments.front().end, kept);
    kept = segments.front().begin;
    EXPECT_LE(opened->journal->disk_bytes(), (segments.size() + 1) * kTestSegment);
    OFFPRINT_EXPECT_CODE(opened->journal->read({Lsn{kSegmentHeaderBlock}, 96, 0, false}),
                         Code::kNotFound);
  }
  EXPECT_LE(files.used_bytes(), 5 * kTestSegment);
}

TEST(Journal, FullDiskRefusesAndWorksAgainLater) {
  FaultFileSystem files;
  std::uint64_t taken = 0;
  {
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    Journal& journal = *opened->journal;
    files.set_capacity(3 * kTestSegment + 1000);
    Result<Location> last = journal.commit(test_draft(test_payload(taken, 4000)));
    for (; last; last = journal.commit(test_draft(test_payload(taken, 4000)))) ++taken;
    OFFPRINT_EXPECT_CODE(last, Code::kFull);
    EXPECT_EQ(journal.segments().size(), 3u);
    Lsn end = journal.end_lsn();
    OFFPRINT_EXPECT_CODE(journal.append(test_draft(test_payload(taken, 4000))), Code::kFull);
    EXPECT_EQ(journal.end_lsn(), end);
    EXPECT_EQ(journal.durable_lsn(), end);
    EXPECT_LE(files.used_bytes(), 3 * kTestSegment);  // the half-made segment is given back
    // Large payloads: refused too, and nothing is left of them.
    auto large = journal.create_large_payload();
    OFFPRINT_ASSERT_OK(large);
    OFFPRINT_EXPECT_CODE((*large)->write(Bytes(2000)), Code::kFull);
    large->reset();
    // What does not need a segment still fits.
    OFFPRINT_ASSERT_OK(journal.commit(test_draft(test_payload(taken++, 10))));
    files.set_capacity(UINT64_MAX);
    OFFPRINT_ASSERT_OK(journal.commit(test_draft(test_payload(taken++, 4000))));
  }
  auto opened = open_journal(files);
  OFFPRINT_ASSERT_OK(opened);
  EXPECT_EQ(opened->records.size(), taken);
}

TEST(Journal, FullDiskDoesNotKeepItFromOpening) {
  FaultFileSystem files;
  {
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    files.set_capacity(kTestSegment);
    Result<Location> last = opened->journal->commit(test_draft(Bytes(4000)));
    while (last) last = opened->journal->commit(test_draft(Bytes(4000)));
  }
  auto opened = open_journal(files);
  OFFPRINT_ASSERT_OK(opened);
  OFFPRINT_EXPECT_CODE(opened->journal->append(test_draft(Bytes(4000))), Code::kFull);
  OFFPRINT_ASSERT_OK(opened->journal->read(opened->records.front().location));
}

TEST(Journal, FailedSyncPoisons) {
  FaultFileSystem files;
  auto opened = open_journal(files);
  OFFPRINT_ASSERT_OK(opened);
  Journal& journal = *opened->journal;
  auto durable = journal.commit(test_draft(Bytes(10)));
  OFFPRINT_ASSERT_OK(durable);
  auto waiting = journal.append(test_draft(Bytes(10)));
  OFFPRINT_ASSERT_OK(waiting);
  files.fail(FaultFileSystem::Operation::kSync, 0, EIO);
  OFFPRINT_EXPECT_CODE(journal.wait_durable(*waiting), Code::kIo);
  std::uint64_t syncs = files.call_count(FaultFileSystem::Operation::kSync);
  OFFPRINT_EXPECT_CODE(journal.wait_durable(*waiting), Code::kIo);
  OFFPRINT_EXPECT_CODE(journal.append(test_draft(Bytes(10))), Code::kIo);
  OFFPRINT_EXPECT_CODE(journal.create_large_payload(), Code::kIo);
  OFFPRINT_EXPECT_CODE(journal.remove_before(Lsn{1}), Code::kIo);
  OFFPRINT_ASSERT_OK(journal.wait_durable(*durable));
  opened->journal.reset();
  EXPECT_EQ(files.call_count(FaultFileSystem::Operation::kSync), syncs);  // never tried again
}

TEST(Journal, VisitorsErrorEndsOpen) {
  FaultFileSystem files;
  {
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    OFFPRINT_ASSERT_OK(opened->journal->commit(test_draft(Bytes(10))));
  }
  auto refuse = [](const Record&) -> Result<> { return fail(Code::kConflict, "no"); };
  OFFPRINT_EXPECT_CODE(Journal::open(files, "data/journal", test_options(), refuse),
                       Code::kConflict);
  auto opened = open_journal(files);
  OFFPRINT_ASSERT_OK(opened);
  EXPECT_EQ(opened->records.size(), 1u);
}

TEST(Journal, RealFilesAreLockedAgainstASecondOwner) {
  std::string directory = testing::TempDir() + "/offprint_journal_lock_test";
  std::filesystem::remove_all(directory);
  {
    auto opened = open_journal(FileSystem::real(), test_options(true), directory);
    OFFPRINT_ASSERT_OK(opened);
    OFFPRINT_EXPECT_CODE(open_journal(FileSystem::real(), test_options(), directory), Code::kBusy);
    for (std::uint64_t i = 0; i < 100; ++i) {
      OFFPRINT_ASSERT_OK(opened->journal->commit(test_draft(test_payload(i, 3000))));
    }
    OFFPRINT_ASSERT_OK(opened->journal->remove_before(Lsn{2 * kTestSegment}));
    for (std::uint64_t i = 100; i < 200; ++i) {
      OFFPRINT_ASSERT_OK(opened->journal->commit(test_draft(test_payload(i, 3000))));
    }
  }
  auto opened = open_journal(FileSystem::real(), test_options(), directory);
  OFFPRINT_ASSERT_OK(opened);
  ASSERT_FALSE(opened->records.empty());
  EXPECT_EQ(opened->records.back().payload, test_payload(199, 3000));
  EXPECT_GE(opened->records.front().location.lsn.value, 2 * kTestSegment);
  opened->journal.reset();
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace offprint::journal
