#pragma once

#include <array>
#include <chrono>

namespace offprint::archive {

inline constexpr int kCompactedLevels = 3;  // 1 … 3: each compacted from the level below

// When what is made, and how long it stays. Each window begins at a multiple of its length.
struct Schedule {
  std::chrono::milliseconds sync{1'000};  // transactions of so long become one file; 0: each one
  std::array<std::chrono::milliseconds, kCompactedLevels> windows{
      std::chrono::seconds(30), std::chrono::minutes(5), std::chrono::hours(1)};
  std::chrono::milliseconds snapshots{std::chrono::hours(24)};
  // How long files stay that a higher level covers, by level; the highest and snapshots: retention.
  std::array<std::chrono::milliseconds, kCompactedLevels> keep{
      std::chrono::minutes(5), std::chrono::hours(24), std::chrono::hours(24 * 7)};
  std::chrono::milliseconds retention{std::chrono::hours(24 * 30)};
};

}  // namespace offprint::archive
