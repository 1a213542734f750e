#pragma once

#include <cstdint>
#include <optional>

#include "base/bytes.h"

// The parts of SQLite's -wal and wal-index formats that the capture needs
// (https://sqlite.org/walformat.html).
namespace offprint::sqlite {

inline constexpr std::size_t kWalHeaderSize = 32;
inline constexpr std::size_t kFrameHeaderSize = 24;
inline constexpr std::size_t kWalIndexHeaderSize = 48;

// A frame header: page, size after commit (0: not a commit), two salts, two checksums; all
// big-endian.
struct FrameHeader {
  std::uint32_t page = 0;
  std::uint32_t size_after_commit = 0;
  std::uint32_t salt1 = 0;
  std::uint32_t salt2 = 0;
  std::uint32_t checksum1 = 0;
  std::uint32_t checksum2 = 0;

  static FrameHeader decode(const std::uint8_t* from) {
    return {load_be<std::uint32_t>(from),      load_be<std::uint32_t>(from + 4),
            load_be<std::uint32_t>(from + 8),  load_be<std::uint32_t>(from + 12),
            load_be<std::uint32_t>(from + 16), load_be<std::uint32_t>(from + 20)};
  }
};

// Where frame `frame` (from 1) begins.
inline std::uint64_t frame_offset(std::uint32_t frame, std::uint32_t page_size) {
  return kWalHeaderSize + std::uint64_t{frame - 1} * (kFrameHeaderSize + page_size);
}

// What the wal-index says of the last commit. In shared memory it stands twice, in the machine's
// byte order but for the salts, which are bytes of the -wal header.
struct WalIndexHeader {
  std::uint32_t change = 0;  // +1 with each commit of anybody; 0 after a recovery of the wal-index
  std::uint32_t page_size = 0;   // 0 before the first commit
  std::uint32_t last_frame = 0;  // 0: no commit in this generation of the -wal
  std::uint32_t page_count = 0;
  std::uint32_t checksum1 = 0;  // of the last frame
  std::uint32_t checksum2 = 0;
  std::uint32_t salt1 = 0;
  std::uint32_t salt2 = 0;

  bool operator==(const WalIndexHeader&) const = default;
  bool same_generation(const WalIndexHeader& other) const {
    return salt1 == other.salt1 && salt2 == other.salt2;
  }
  bool same_checksum(const WalIndexHeader& other) const {
    return checksum1 == other.checksum1 && checksum2 == other.checksum2;
  }

  // One copy, not validated.
  static WalIndexHeader decode(const std::uint8_t* from);
  // Both copies as they stand at the start of the wal-index; nothing unless they agree and their
  // checksum fits. Under the WRITE lock nobody else changes it; without it this is the state of a
  // moment ago.
  static std::optional<WalIndexHeader> read(const volatile void* wal_index);
};

}  // namespace offprint::sqlite
