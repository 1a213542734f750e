#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include <fmt/format.h>

namespace offprint::bench {

// Of values in any order; 0 of none.
inline double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  auto rank = std::ceil(share * static_cast<double>(values.size()));
  return values[std::min(values.size() - 1, static_cast<std::size_t>(std::max(rank, 1.0)) - 1)];
}
inline double median(const std::vector<double>& values) { return quantile(values, 0.5); }

// "p50 1.20 ms, p99 3.40, slowest 4.00 (300 of them)" of milliseconds.
inline std::string latencies(const std::vector<double>& ms) {
  return fmt::format("p50 {:.2f} ms, p99 {:.2f}, slowest {:.2f} ({} of them)", median(ms),
                     quantile(ms, 0.99), quantile(ms, 1), ms.size());
}

}  // namespace offprint::bench
