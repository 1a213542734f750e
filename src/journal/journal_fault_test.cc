#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "journal/format.h"
#include "journal/journal.h"
#include "journal/journal_test_util.h"

// Power losses, process crashes and failing operations: what was acknowledged stays, what was never
// appended never comes.
namespace offprint::journal {
namespace {

std::uint64_t rounds(std::uint64_t by_default) {
  const char* asked = std::getenv("OFFPRINT_TEST_ROUNDS");
  return asked == nullptr ? by_default : std::strtoull(asked, nullptr, 10);
}

// What may and what must be in a journal. Each record's content is known by its lsn.
class Model {
 public:
  struct Entry {
    std::uint64_t seed = 0;
    std::size_t size = 0;
    bool large = false;
    bool must_survive = false;
  };

  void appended(const Location& location, const Entry& entry) {
    std::lock_guard lock(mutex_);
    entries_[location.lsn.value] = entry;
  }
  void acknowledged(const Location& location) {
    std::lock_guard lock(mutex_);
    entries_.at(location.lsn.value).must_survive = true;
  }
  void removed_before(std::uint64_t lsn) {
    std::lock_guard lock(mutex_);
    entries_.erase(entries_.begin(), entries_.lower_bound(lsn));
  }

  // Compares with what an opening found, which is the truth from then on: it was served.
  void check_and_adopt(Opened& opened) {
    std::lock_guard lock(mutex_);
    auto expected = entries_.begin();
    for (const Record& record : opened.records) {
      // In order, without a hole, each exactly as appended.
      ASSERT_NE(expected, entries_.end())
          << "a record that nobody appended, lsn " << record.location.lsn.value;
      ASSERT_EQ(expected->first, record.location.lsn.value);
      const Entry& entry = expected->second;
      ASSERT_EQ(record.location.large, entry.large);
      ASSERT_EQ(record.location.payload_size, entry.size);
      if (entry.large) {
        auto content = read_all(*opened.journal, record.location);
        OFFPRINT_ASSERT_OK(content);
        ASSERT_EQ(*content, test_payload(entry.seed, entry.size));
      } else {
        ASSERT_EQ(record.payload, test_payload(entry.seed, entry.size));
      }
      ++expected;
    }
    for (auto lost = expected; lost != entries_.end(); ++lost) {
      ASSERT_FALSE(lost->second.must_survive)
          << "an acknowledged record is gone, lsn " << lost->first;
    }
    entries_.erase(expected, entries_.end());
    for (auto& [lsn, entry] : entries_) entry.must_survive = true;
  }

 private:
  std::mutex mutex_;
  std::map<std::uint64_t, Entry> entries_;
};

// Opens, with power losses in the middle of some openings.
void reopen(FaultFileSystem& files, std::mt19937_64& dice, Model& model, Opened& result,
            bool background) {
  for (int attempt = 0;; ++attempt) {
    if (attempt < 3 && dice() % 3 == 0) {
      files.crash_at(files.call_count() + dice() % 60, dice());
    }
    auto opened = open_journal(files, test_options(background));
    files.restart();
    if (!opened) {
      ASSERT_EQ(opened.error().code(), Code::kIo) << opened.error().message();
      ASSERT_LT(attempt, 3);
      continue;
    }
    result = *std::move(opened);
    ASSERT_NO_FATAL_FAILURE(model.check_and_adopt(result));
    return;
  }
}

struct Writers {
  FaultFileSystem& files;
  Journal& journal;
  Model& model;
  std::atomic<std::uint64_t>& seeds;

  void write(std::uint64_t dice_seed) {
    std::mt19937_64 dice(dice_seed);
    for (int i = 0; i < 400; ++i) {
      std::uint64_t seed = ++seeds;
      std::size_t size = dice() % 8 == 0 ? dice() % 20000 : dice() % 600;
      auto location = dice() % 40 == 0 ? append_large(seed, size) : append_small(seed, size);
      if (!location) return;
      if (dice() % 4 == 0) continue;
      if (!journal.wait_durable(*location)) return;
      model.acknowledged(*location);
    }
  }

 private:
  // The model hears of the record before anybody can wait for it, but after it got its position:
  // what was lost in between by a power loss is unknown to both.
  Result<Location> append_small(std::uint64_t seed, std::size_t size) {
    auto location = journal.append(test_draft(test_payload(seed, size)));
    if (location) model.appended(*location, {seed, size, false, false});
    return location;
  }
  Result<Location> append_large(std::uint64_t seed, std::size_t size) {
    OFFPRINT_TRY_ASSIGN(auto large, journal.create_large_payload());
    OFFPRINT_TRY(large->write(test_payload(seed, size)));
    OFFPRINT_TRY(large->finish());
    Draft draft;
    draft.large_file = large->file();
    draft.large_size = large->size();
    OFFPRINT_TRY_ASSIGN(Location location, journal.append(std::move(draft)));
    model.appended(location, {seed, size, true, false});
    return location;
  }
};

TEST(JournalFault, PowerLossLosesNothingAcknowledgedAndInventsNothing) {
  std::uint64_t losses = rounds(150);
  for (std::uint64_t world = 0; world < std::max<std::uint64_t>(1, losses / 10); ++world) {
    SCOPED_TRACE("world " + std::to_string(world));
    std::mt19937_64 dice(world);
    FaultFileSystem files;
    Model model;
    std::atomic<std::uint64_t> seeds{0};
    for (int round = 0; round < 10; ++round) {
      SCOPED_TRACE("round " + std::to_string(round));
      Opened opened;
      ASSERT_NO_FATAL_FAILURE(reopen(files, dice, model, opened, dice() % 2 == 0));
      if (dice() % 3 == 0 && !opened.records.empty()) {
        Lsn lsn = opened.records[dice() % opened.records.size()].location.lsn;
        OFFPRINT_ASSERT_OK(opened.journal->remove_before(lsn));
        model.removed_before(opened.journal->segments().front().begin.value);
      }
      bool process_only = dice() % 4 == 0;
      std::uint64_t seed = dice();
      files.crash_at(files.call_count() + dice() % 400,
                     process_only ? std::nullopt : std::optional<std::uint64_t>(seed));
      Writers writers{files, *opened.journal, model, seeds};
      std::vector<std::thread> threads;
      for (int i = 0; i < 4; ++i)
        threads.emplace_back([&writers, each = dice()] { writers.write(each); });
      for (std::thread& thread : threads) thread.join();
      // Usually the journal is still there when the machine stops, at times it went before.
      if (dice() % 4 == 0) opened.journal.reset();
      if (!process_only) files.power_loss(seed + 1);
      if (process_only) files.process_crash();
      opened.journal.reset();
      files.restart();
    }
    Opened opened;
    ASSERT_NO_FATAL_FAILURE(reopen(files, dice, model, opened, false));
  }
}

// A workload that meets every kind of operation. What fails with kFull is tried once more.
class Script {
 public:
  explicit Script(FaultFileSystem& files) : files_(files) {}

  Model model;
  bool saw_full = false;

  // Answers the first error that is not kFull.
  Result<> run() {
    OFFPRINT_TRY(again([&]() -> Result<> {
      OFFPRINT_TRY_ASSIGN(opened_, open_journal(files_));
      return {};
    }));
    for (std::uint64_t i = 0; i < 80; ++i) {
      OFFPRINT_TRY(again([&] { return append(i, 100 + i * 397 % 9000, i % 3 != 0); }));
      if (i % 9 == 3) OFFPRINT_TRY(again([&] { return append_large(1000 + i, 9000); }));
      if (i == 40 || i == 60) OFFPRINT_TRY(again([&] { return remove(); }));
    }
    opened_.journal.reset();
    return {};
  }
  void drop() { opened_.journal.reset(); }

 private:
  Result<> again(const std::function<Result<>()>& action) {
    auto done = action();
    if (!done && done.error().code() == Code::kFull) {
      saw_full = true;
      done = action();
    }
    return done;
  }
  Result<> append(std::uint64_t seed, std::size_t size, bool wait) {
    OFFPRINT_TRY_ASSIGN(Location location,
                        opened_.journal->append(test_draft(test_payload(seed, size))));
    return note(location, {seed, size, false, false}, wait);
  }
  Result<> append_large(std::uint64_t seed, std::size_t size) {
    OFFPRINT_TRY_ASSIGN(auto large, opened_.journal->create_large_payload());
    OFFPRINT_TRY(large->write(test_payload(seed, size)));
    OFFPRINT_TRY(large->finish());
    Draft draft;
    draft.large_file = large->file();
    draft.large_size = large->size();
    OFFPRINT_TRY_ASSIGN(Location location, opened_.journal->append(std::move(draft)));
    return note(location, {seed, size, true, false}, true);
  }
  Result<> note(const Location& location, const Model::Entry& entry, bool wait) {
    model.appended(location, entry);
    if (!wait) return {};
    OFFPRINT_TRY(opened_.journal->wait_durable(location));
    model.acknowledged(location);
    return {};
  }
  Result<> remove() {
    Lsn until{opened_.journal->end_lsn().value - kTestSegment};
    // Whether or not it fails: what was to be removed need not be there.
    may_be_gone_ = until;
    OFFPRINT_TRY(opened_.journal->remove_before(until));
    model.removed_before(opened_.journal->segments().front().begin.value);
    return {};
  }

 public:
  // The records that an interrupted removal may have taken.
  Lsn may_be_gone() const { return may_be_gone_; }

 private:
  FaultFileSystem& files_;
  Opened opened_;
  Lsn may_be_gone_;
};

// After the failure: what acknowledged records are there, in the process that follows and after a
// power loss.
void check_after(FaultFileSystem& files, Script& script, std::uint64_t seed) {
  for (int step = 0; step < 3; ++step) {
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    if (step == 0) {
      Lsn first = opened->journal->segments().front().begin;
      if (first <= script.may_be_gone()) script.model.removed_before(first.value);
    }
    ASSERT_NO_FATAL_FAILURE(script.model.check_and_adopt(*opened));
    // On into the next segments, also into one that the failure has left behind.
    for (std::uint64_t i = 0; i < 9; ++i) {
      auto location = opened->journal->commit(test_draft(test_payload(5000 + i, 9000)));
      OFFPRINT_ASSERT_OK(location);
      script.model.appended(*location, {5000 + i, 9000, false, true});
    }
    if (step == 0) files.process_crash();
    if (step == 1) files.power_loss(seed);
  }
}

TEST(JournalFault, EveryOperationFailsOnce) {
  std::uint64_t total = 0;
  {
    FaultFileSystem files;
    Script script(files);
    std::uint64_t before = files.call_count();
    OFFPRINT_ASSERT_OK(script.run());
    total = files.call_count() - before;
  }
  ASSERT_GT(total, 100u);
  bool all_pairs =
      rounds(0) > 0;  // else every call fails each way, and is followed by one of both ends
  std::uint64_t full = 0;
  std::uint64_t poisoned = 0;
  for (std::uint64_t n = 0; n < total; ++n) {
    for (int error : {EIO, ENOSPC}) {
      for (bool power_loss : {false, true}) {
        if (!all_pairs && (n + (error == EIO ? 1 : 0) + (power_loss ? 1 : 0)) % 2 == 0) continue;
        SCOPED_TRACE("call " + std::to_string(n) + (error == EIO ? " EIO" : " ENOSPC") +
                     (power_loss ? " power" : ""));
        FaultFileSystem files;
        std::string failed;
        files.set_hook([&](const FaultFileSystem::Call& call) {
          if (call.number != n) return 0;
          failed = FaultFileSystem::operation_name(call.operation) + (" " + call.path);
          return error;
        });
        Script script(files);
        auto ran = script.run();
        SCOPED_TRACE(failed);
        if (!ran) {
          ASSERT_EQ(ran.error().code(), Code::kIo) << ran.error().message();
          ++poisoned;
        }
        full += script.saw_full ? 1 : 0;
        if (power_loss) files.power_loss(n);
        if (!power_loss) files.process_crash();
        script.drop();
        ASSERT_NO_FATAL_FAILURE(check_after(files, script, n));
      }
    }
  }
  EXPECT_GT(full, 10u);
  EXPECT_GT(poisoned, 100u);
}

TEST(JournalFault, FullDiskAtEveryByteCountIsRefusedAndLosesNothing) {
  for (std::uint64_t capacity = 0; capacity < 7 * kTestSegment; capacity += 3001) {
    SCOPED_TRACE(capacity);
    FaultFileSystem files;
    files.set_capacity(capacity);
    Script script(files);
    auto ran = script.run();
    if (!ran) ASSERT_EQ(ran.error().code(), Code::kFull) << ran.error().message();
    script.drop();
    files.set_capacity(UINT64_MAX);
    files.power_loss(capacity);
    ASSERT_NO_FATAL_FAILURE(check_after(files, script, capacity));
  }
}

// After a failed sync Linux calls the pages clean: the next process reads, and serves, what no
// later sync would write.
TEST(JournalFault, WhatIsServedAfterAFailedSyncSurvivesAPowerLoss) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    FaultFileSystem files;
    {
      auto opened = open_journal(files);
      OFFPRINT_ASSERT_OK(opened);
      OFFPRINT_ASSERT_OK(opened->journal->commit(test_draft(test_payload(0, 700))));
      auto location = opened->journal->append(test_draft(test_payload(1, 700)));
      OFFPRINT_ASSERT_OK(location);
      files.fail(FaultFileSystem::Operation::kSync, 0, EIO);
      OFFPRINT_EXPECT_CODE(opened->journal->wait_durable(*location), Code::kIo);
      files.process_crash();
    }
    {
      auto opened = open_journal(files);
      OFFPRINT_ASSERT_OK(opened);
      ASSERT_EQ(opened->records.size(), 2u);
      files.power_loss(seed);
    }
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    ASSERT_EQ(opened->records.size(), 2u);
    EXPECT_EQ(opened->records[1].payload, test_payload(1, 700));
  }
}

TEST(JournalFault, LargePayloadsComeAndGoWithTheirRecords) {
  FaultFileSystem files;
  auto count = [&] { return files.list("data/journal/large")->size(); };
  auto opened = open_journal(files);
  OFFPRINT_ASSERT_OK(opened);
  auto make = [&](std::uint64_t seed) {
    auto large = opened->journal->create_large_payload();
    EXPECT_TRUE(large);
    for (int i = 0; i < 10; ++i)
      EXPECT_TRUE((*large)->write(test_payload(seed * 10 + static_cast<std::uint64_t>(i), 3000)));
    return *std::move(large);
  };
  {
    auto unfinished = make(1);
  }
  EXPECT_EQ(count(), 0u);
  {
    auto without_record = make(2);
    OFFPRINT_ASSERT_OK(without_record->finish());
    EXPECT_EQ(count(), 1u);
  }
  EXPECT_EQ(count(), 0u);
  Location location;
  {
    auto large = make(3);
    Draft early;
    early.large_file = large->file();
    early.large_size = large->size();
    OFFPRINT_EXPECT_CODE(opened->journal->append(early), Code::kInvalid);  // not finished
    OFFPRINT_ASSERT_OK(large->finish());
    auto committed = opened->journal->commit(early);
    OFFPRINT_ASSERT_OK(committed);
    location = *committed;
    OFFPRINT_EXPECT_CODE(opened->journal->append(early), Code::kInvalid);  // taken
  }
  EXPECT_EQ(count(), 1u);
  EXPECT_TRUE(location.large);
  EXPECT_EQ(location.payload_size, 30000u);
  auto content = read_all(*opened->journal, location);
  OFFPRINT_ASSERT_OK(content);
  EXPECT_EQ(content->size(), 30000u);
  // An orphan: finished, and then the process dies.
  auto orphan = make(4);
  OFFPRINT_ASSERT_OK(orphan->finish());
  files.process_crash();
  opened->journal.reset();
  orphan.reset();
  auto next = open_journal(files);
  OFFPRINT_ASSERT_OK(next);
  EXPECT_EQ(count(), 1u);
  // A reader keeps what it has open.
  auto source = next->journal->open_payload(location);
  OFFPRINT_ASSERT_OK(source);
  for (int i = 0; i < 30; ++i) OFFPRINT_ASSERT_OK(next->journal->commit(test_draft(Bytes(9000))));
  OFFPRINT_ASSERT_OK(next->journal->remove_before(next->journal->end_lsn()));
  EXPECT_EQ(count(), 0u);
  Bytes half(30000);
  auto got = (*source)->read(half);
  OFFPRINT_ASSERT_OK(got);
  EXPECT_EQ(*got, 30000u);
  EXPECT_EQ(half, *content);
  OFFPRINT_EXPECT_CODE(next->journal->open_payload(location), Code::kNotFound);
}

}  // namespace
}  // namespace offprint::journal
