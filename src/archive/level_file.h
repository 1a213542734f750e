#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string>

#include "ltx/codec.h"

namespace offprint::archive {

// A file of transactions in an archive: those from `min` to `max`, as of the last one's time.
// Level 0: as they came; above it: compacted from the level below; kSnapshotLevel: whole databases.
struct LevelFile {
  int level = 0;
  TxId min, max;
  std::int64_t timestamp_ms = 0;  // 0: not known
  std::uint64_t size = 0;

  std::string name() const { return ltx::file_name(min, max); }
};

inline constexpr int kSnapshotLevel = 9;
inline constexpr int kCompactedLevels = 3;  // 1 … 3
inline constexpr int kLevels[] = {0, 1, 2, 3, kSnapshotLevel};

// When what is made, and how long it stays. Each window begins at a multiple of its length.
struct Schedule {
  std::chrono::milliseconds sync{1'000};  // transactions of so long become one file; 0: at once
  std::array<std::chrono::milliseconds, kCompactedLevels> windows{
      std::chrono::seconds(30), std::chrono::minutes(5), std::chrono::hours(1)};
  std::chrono::milliseconds snapshots{std::chrono::hours(24)};
  // How long files stay that a higher level covers, by level; the highest and snapshots: retention.
  std::array<std::chrono::milliseconds, kCompactedLevels> keep{
      std::chrono::minutes(5), std::chrono::hours(24), std::chrono::hours(24 * 7)};
  std::chrono::milliseconds retention{std::chrono::hours(24 * 30)};
};

}  // namespace offprint::archive
