#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"

namespace offprint {

// Durations in microseconds, kept to within 2 %, from 1 µs to an hour. Value type.
class LatencyHistogram {
 public:
  void add(std::uint64_t microseconds);
  // The duration below which `share` (0 … 1) of all lie; 0 when there are none.
  std::uint64_t quantile(double share) const;
  std::uint64_t count() const { return count_; }
  std::uint64_t max() const { return max_; }

 private:
  static constexpr unsigned kSubBits = 6;  // 64 steps for each doubling
  static std::size_t bucket_of(std::uint64_t microseconds);
  static std::uint64_t top_of(std::size_t bucket);

  std::array<std::uint64_t, (40 - kSubBits) << kSubBits> buckets_{};
  std::uint64_t count_ = 0, max_ = 0;
};

struct LoadOptions {
  std::string host;
  std::string port;
  int clients = 64;
  int warm_up_ms = 500;
  int duration_ms = 5'000;
  // Called at the beginning and at the end of what is measured.
  std::function<void()> on_start, on_end;
};

struct LoadResult {
  std::uint64_t requests = 0;  // answered with success within the measured time
  std::uint64_t errors = 0;
  double seconds = 0;
  LatencyHistogram latency;
  std::string first_error;
};

// Keeps `clients` connections busy from one thread, each sending its next request when it has its
// answer. `append_request` appends a whole HTTP request. An answer counts as an error when its
// status is not 2xx or its body holds `"type":"error"` or `"success":false`. Errors: kUnavailable:
// no connection can be made, or all were lost.
Result<LoadResult> run_load(const LoadOptions& options,
                            const std::function<void(std::string& to)>& append_request);

}  // namespace offprint
