#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <gtest/gtest.h>

#include "journal/format.h"
#include "journal/journal.h"
#include "journal/journal_test_util.h"

// Many threads on one journal. Run under the thread sanitizer too.
namespace offprint::journal {
namespace {

TEST(JournalThreads, EveryCommitOfManyThreadsIsThereAfterAPowerLoss) {
  constexpr std::uint64_t kThreads = 16;
  constexpr std::uint64_t kEach = 150;
  FaultFileSystem files;
  {
    auto opened = open_journal(files, test_options(true));
    OFFPRINT_ASSERT_OK(opened);
    Journal& journal = *opened->journal;
    std::vector<std::thread> threads;
    std::atomic<int> failures{0};
    for (std::uint64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        Lsn last;
        for (std::uint64_t i = 0; i < kEach; ++i) {
          auto location = journal.commit(
              test_draft(test_payload(t * kEach + i, (t * 37 + i * 11) % 900), t * kEach + i));
          bool fine = location && location->lsn > last &&
                      journal.durable_lsn().value >= location->lsn.value + location->size;
          if (!fine) ++failures;
          if (location) last = location->lsn;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(failures, 0);
    EXPECT_LE(journal.sync_count(), kThreads * kEach + 100);
    files.power_loss(1);
  }
  auto opened = open_journal(files);
  OFFPRINT_ASSERT_OK(opened);
  ASSERT_EQ(opened->records.size(), kThreads * kEach);
  std::vector<bool> seen(kThreads * kEach);
  for (const Record& record : opened->records) {
    std::uint64_t id = record.database_id;
    ASSERT_FALSE(seen.at(id));
    seen[id] = true;
    ASSERT_EQ(record.payload, test_payload(id, (id / kEach * 37 + id % kEach * 11) % 900));
  }
}

// While one batch is being synced, all others gather: they share the next sync.
TEST(JournalThreads, WhoComesDuringASyncSharesTheNextOne) {
  constexpr int kThreads = 24;
  FaultFileSystem files;
  auto opened = open_journal(files);
  OFFPRINT_ASSERT_OK(opened);
  Journal& journal = *opened->journal;
  std::mutex mutex;
  std::condition_variable changed;
  bool in_sync = false;
  bool go_on = false;
  files.set_hook([&](const FaultFileSystem::Call& call) {
    if (call.operation != FaultFileSystem::Operation::kSync) return 0;
    std::unique_lock lock(mutex);
    in_sync = true;
    changed.notify_all();
    changed.wait(lock, [&] { return go_on; });
    return 0;
  });
  std::uint64_t before = journal.sync_count();
  std::atomic<int> failures{0};
  auto commit = [&] {
    if (!journal.commit(test_draft(Bytes(100)))) ++failures;
  };
  std::vector<std::thread> threads;
  threads.emplace_back(commit);
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return in_sync; });
  }
  Lsn end = journal.end_lsn();
  for (int i = 0; i < kThreads; ++i) threads.emplace_back(commit);
  std::uint64_t record = 72 + 104;  // 100 bytes padded to 176 with the header
  while (journal.end_lsn().value < end.value + kThreads * record) std::this_thread::yield();
  {
    std::lock_guard lock(mutex);
    go_on = true;
  }
  changed.notify_all();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(journal.sync_count(), before + 2);
  files.set_hook(nullptr);
}

// Something else fails while a batch is being synced: who was to lead the next batch must not leave
// the others asleep.
TEST(JournalThreads, AFailureWakesAllWhoWait) {
  for (int round = 0; round < 30; ++round) {
    FaultFileSystem files;
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    Journal& journal = *opened->journal;
    std::atomic<bool> in_sync{false};
    std::atomic<bool> go_on{false};
    files.set_hook([&](const FaultFileSystem::Call& call) {
      if (call.operation == FaultFileSystem::Operation::kWrite &&
          call.path.find("/large/") != std::string::npos) {
        return EIO;
      }
      if (call.operation == FaultFileSystem::Operation::kSync) {
        in_sync = true;
        while (!go_on) std::this_thread::yield();
      }
      return 0;
    });
    std::atomic<int> answered{0};
    std::vector<std::thread> threads;
    auto commit = [&] {
      auto done = journal.commit(test_draft(Bytes(100)));
      answered += done || done.error().code() == Code::kIo ? 1 : 100;
    };
    threads.emplace_back(commit);
    while (!in_sync) std::this_thread::yield();
    Lsn end = journal.end_lsn();
    for (int i = 0; i < 8; ++i) threads.emplace_back(commit);
    while (journal.end_lsn().value < end.value + std::uint64_t{8} * 176) std::this_thread::yield();
    auto large = journal.create_large_payload();
    OFFPRINT_ASSERT_OK(large);
    OFFPRINT_EXPECT_CODE((*large)->write(Bytes(100'000)), Code::kIo);
    go_on = true;
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(answered, 9);
    large->reset();
    files.set_hook(nullptr);
  }
}

TEST(JournalThreads, ReadersAndRemovalAndRecyclingAtOnce) {
  FaultFileSystem files;
  auto opened = open_journal(files, test_options(true));
  OFFPRINT_ASSERT_OK(opened);
  Journal& journal = *opened->journal;
  std::mutex mutex;
  std::vector<std::pair<Location, std::uint64_t>> known;
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::atomic<std::uint64_t> gone{0};
  std::atomic<std::uint64_t> read{0};
  auto reader = [&](std::uint64_t dice) {
    while (!stop) {
      dice = dice * 6364136223846793005u + 1442695040888963407u;
      std::pair<Location, std::uint64_t> pick;
      {
        std::lock_guard lock(mutex);
        if (known.empty()) continue;
        pick = known[(dice >> 33) % known.size()];
      }
      auto content = read_all(journal, pick.first);
      if (!content) {
        if (content.error().code() != Code::kNotFound) ++wrong;
        ++gone;
      } else {
        if (*content != test_payload(pick.second, pick.first.payload_size)) ++wrong;
        ++read;
      }
    }
  };
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < 3; ++i) threads.emplace_back(reader, i);
  for (std::uint64_t i = 0; i < 1500; ++i) {
    auto location = journal.commit(test_draft(test_payload(i, 1000 + i % 1000)));
    OFFPRINT_ASSERT_OK(location);
    {
      std::lock_guard lock(mutex);
      known.emplace_back(*location, i);
      if (known.size() > 300) known.erase(known.begin());
    }
    if (i % 100 == 99)
      OFFPRINT_ASSERT_OK(journal.remove_before(Lsn{location->lsn.value - 2 * kTestSegment}));
  }
  while (read < 100 || gone < 1) {
    if (gone < 1) {
      std::lock_guard lock(mutex);
      known.emplace_back(Location{Lsn{kSegmentHeaderBlock}, 96, 0, false}, 0);
    }
    std::this_thread::yield();
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(journal.segments().size(), 6u);
}

}  // namespace
}  // namespace offprint::journal
