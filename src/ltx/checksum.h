#pragma once

#include "base/bytes.h"
#include "ltx/types.h"

// CRC-64/GO-ISO and what LTX builds from it (docs/format/ltx.md, "Checksums").
namespace offprint::ltx {

inline constexpr std::uint64_t kChecksumFlag = std::uint64_t{1} << 63;

// Running CRC-64: reflected polynomial 0xd800000000000000, all ones in and out; check("123456789")
// = 0xb90956c775a41001.
class Crc64 {
 public:
  void update(ByteView bytes);
  std::uint64_t value() const { return ~state_; }

 private:
  std::uint64_t state_ = ~std::uint64_t{0};
};

// (1<<63) | CRC64(big-endian page number, page content).
Checksum page_checksum(PageNo page, ByteView content);

// The checksum of a database without pages.
inline constexpr Checksum kEmptyDatabase{kChecksumFlag};

// Adds or takes away one page's checksum (both are XOR): the rolling checksum moves by old and new
// page checksums.
inline Checksum toggle(Checksum database, Checksum page) {
  return Checksum{kChecksumFlag | (database.value ^ page.value)};
}

// The page that holds SQLite's lock bytes (offset 2^30); never stored, never part of a checksum.
inline PageNo lock_page(std::uint32_t page_size) { return 0x40000000u / page_size + 1; }

}  // namespace offprint::ltx
