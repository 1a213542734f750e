#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "database/insights.h"

namespace offprint::database {

// What the statements of all databases cost since the process began.
struct StatementSums {
  // Statements by their time: up to each of these, and in one more the others.
  static constexpr std::array<double, 9> kBucketSeconds = {0.0001, 0.0005, 0.0025, 0.01, 0.05,
                                                           0.25,   1,      5,      30};
  std::array<std::uint64_t, kBucketSeconds.size() + 1> by_time{};
  std::uint64_t rows_read = 0, rows_written = 0, time_ns = 0;
  std::uint64_t slow = 0;

  std::uint64_t count() const;
};

// Adds them up. Threads have places of their own, so that they do not wait for one another's cache
// lines. Thread: any.
class StatementTotals {
 public:
  void record(const StatementSample& sample);
  StatementSums read() const;

 private:
  struct alignas(64) Shard {
    std::array<std::atomic<std::uint64_t>, StatementSums::kBucketSeconds.size() + 1> by_time{};
    std::atomic<std::uint64_t> rows_read{0}, rows_written{0}, time_ns{0};
  };
  static std::size_t shard_of_thread();

  std::array<Shard, 8> shards_;
};

}  // namespace offprint::database
