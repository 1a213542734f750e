// Durable commits of 4 KiB records by 1 and by 64 threads, against bare pwrite + fdatasync on a
// preallocated file in the same run: journal_bench [DIRECTORY [SECONDS]].
#include <fmt/core.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <sys/resource.h>

#include "base/file_system.h"
#include "journal/journal.h"

namespace {

using namespace offprint;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kRecordSize = 4096;

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct Rate {
  double per_second = 0;
  double cpu_us = 0;  // each
};

// Calls `once` from `threads` threads for `seconds`; it answers false on failure.
Rate measure(int threads, double seconds, const std::function<bool()>& once) {
  std::atomic<std::uint64_t> count{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> pool;
  double cpu = cpu_seconds();
  auto start = Clock::now();
  for (int i = 0; i < threads; ++i) {
    pool.emplace_back([&] {
      while (!stop) {
        if (!once()) {
          fmt::print("failed\n");
          std::abort();
        }
        ++count;
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  stop = true;
  for (std::thread& thread : pool) thread.join();
  double elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  double number = static_cast<double>(count);
  return {number / elapsed, (cpu_seconds() - cpu) * 1e6 / number};
}

Result<Rate> raw(const std::string& directory, double seconds) {
  constexpr std::uint64_t kSize = 64 << 20;
  OFFPRINT_TRY_ASSIGN(auto file,
                      FileSystem::real().open(directory + "/raw", FileSystem::Mode::kCreate));
  Bytes zeros(1 << 20);
  for (std::uint64_t at = 0; at < kSize; at += zeros.size())
    OFFPRINT_TRY(file->write_at(at, zeros));
  OFFPRINT_TRY(file->sync());
  Bytes record(kRecordSize, 7);
  std::uint64_t at = 0;
  return measure(1, seconds, [&] {
    bool fine = file->write_at(at, record).has_value() && file->sync().has_value();
    at = (at + kRecordSize) % kSize;
    return fine;
  });
}

Result<Rate> journaled(const std::string& directory, int threads, double seconds) {
  OFFPRINT_TRY_ASSIGN(
      auto journal, journal::Journal::open(FileSystem::real(), directory, journal::Options(),
                                           [](const journal::Record&) -> Result<> { return {}; }));
  std::atomic<bool> stop{false};
  std::thread cleaner([&] {  // as checkpoints do
    while (!stop) {
      std::uint64_t end = journal->end_lsn().value;
      if (end > (std::uint64_t{64} << 20)) {
        auto removed = journal->remove_before(journal::Lsn{end - (std::uint64_t{64} << 20)});
        if (!removed) fmt::print("{}\n", removed.error().message());
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  });
  std::uint64_t syncs = journal->sync_count();
  Rate rate = measure(threads, seconds, [&] {
    journal::Draft draft;
    draft.database_id = 1;
    draft.payload.assign(kRecordSize - 72, 7);
    return journal->commit(std::move(draft)).has_value();
  });
  stop = true;
  cleaner.join();
  fmt::print("  ({:.1f} commits a sync)\n",
             rate.per_second * seconds / static_cast<double>(journal->sync_count() - syncs));
  return rate;
}

Result<> run(const std::string& directory, double seconds) {
  OFFPRINT_TRY(FileSystem::real().create_directories(directory));
  for (int round = 0; round < 3; ++round) {
    OFFPRINT_TRY_ASSIGN(Rate base, raw(directory, seconds));
    fmt::print("pwrite + fdatasync, 1 thread   {:8.0f}/s  {:5.1f} us of CPU each\n",
               base.per_second, base.cpu_us);
    for (int threads : {1, 8, 64}) {
      OFFPRINT_TRY_ASSIGN(Rate rate, journaled(directory + "/journal", threads, seconds));
      fmt::print("journal, {:2} threads            {:8.0f}/s  {:5.1f} us of CPU each   {:.2f} x\n",
                 threads, rate.per_second, rate.cpu_us, rate.per_second / base.per_second);
    }
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  std::string directory =
      argc > 1 ? argv[1]
               : (std::filesystem::temp_directory_path() / "offprint_journal_bench").string();
  auto done = run(directory, argc > 2 ? std::stod(argv[2]) : 2.0);
  if (!done) fmt::print("{}\n", done.error().message());
  if (argc < 2) std::filesystem::remove_all(directory);
  return done ? 0 : 1;
}
