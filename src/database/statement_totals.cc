#include "database/statement_totals.h"

#include <algorithm>

namespace offprint::database {
namespace {

std::size_t bucket_of(std::chrono::nanoseconds time) {
  const auto& bounds = StatementSums::kBucketSeconds;
  double seconds = std::chrono::duration<double>(time).count();
  return static_cast<std::size_t>(std::lower_bound(bounds.begin(), bounds.end(), seconds) -
                                  bounds.begin());
}

}  // namespace

std::uint64_t StatementSums::count() const {
  std::uint64_t sum = 0;
  for (std::uint64_t each : by_time) sum += each;
  return sum;
}

std::size_t StatementTotals::shard_of_thread() {
  static std::atomic<std::size_t> next{0};
  thread_local std::size_t own = next.fetch_add(1, std::memory_order_relaxed);
  return own;
}

void StatementTotals::record(const StatementSample& sample) {
  Shard& shard = shards_[shard_of_thread() % shards_.size()];
  auto add = [](std::atomic<std::uint64_t>& to, std::uint64_t value) {
    if (value != 0) to.fetch_add(value, std::memory_order_relaxed);
  };
  add(shard.by_time[bucket_of(sample.time)], 1);
  add(shard.time_ns, static_cast<std::uint64_t>(sample.time.count()));
  add(shard.rows_read, sample.rows_read);
  add(shard.rows_written, sample.rows_written);
}

StatementSums StatementTotals::read() const {
  StatementSums sums;
  for (const Shard& shard : shards_) {
    for (std::size_t i = 0; i < sums.by_time.size(); ++i)
      sums.by_time[i] += shard.by_time[i].load(std::memory_order_relaxed);
    sums.rows_read += shard.rows_read.load(std::memory_order_relaxed);
    sums.rows_written += shard.rows_written.load(std::memory_order_relaxed);
    sums.time_ns += shard.time_ns.load(std::memory_order_relaxed);
  }
  return sums;
}

}  // namespace offprint::database
