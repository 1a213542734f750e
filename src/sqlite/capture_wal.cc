#include "sqlite/capture_wal.h"

#include <cstring>

namespace offprint::sqlite {
namespace {

template <class T>
T load_native(const std::uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// SQLite's checksum over the header's first 40 bytes, in native order.
bool checksum_fits(const std::uint8_t* header) {
  std::uint32_t sum1 = 0;
  std::uint32_t sum2 = 0;
  for (std::size_t at = 0; at < kWalIndexHeaderSize - 8; at += 8) {
    sum1 += load_native<std::uint32_t>(header + at) + sum2;
    sum2 += load_native<std::uint32_t>(header + at + 4) + sum1;
  }
  return sum1 == load_native<std::uint32_t>(header + 40) &&
         sum2 == load_native<std::uint32_t>(header + 44);
}

}  // namespace

WalIndexHeader WalIndexHeader::decode(const std::uint8_t* from) {
  WalIndexHeader header;
  header.change = load_native<std::uint32_t>(from + 8);
  std::uint32_t size = load_native<std::uint16_t>(from + 14);
  header.page_size = (size & 0xfe00) | ((size & 1) << 16);  // 1 stands for 65536
  header.last_frame = load_native<std::uint32_t>(from + 16);
  header.page_count = load_native<std::uint32_t>(from + 20);
  header.checksum1 = load_native<std::uint32_t>(from + 24);
  header.checksum2 = load_native<std::uint32_t>(from + 28);
  header.salt1 = load_be<std::uint32_t>(from + 32);
  header.salt2 = load_be<std::uint32_t>(from + 36);
  return header;
}

std::optional<WalIndexHeader> WalIndexHeader::read(const volatile void* wal_index) {
  if (wal_index == nullptr) return std::nullopt;
  std::uint8_t copies[2 * kWalIndexHeaderSize];
  std::memcpy(copies, const_cast<const void*>(wal_index), sizeof copies);
  bool initialized = copies[12] != 0;
  if (!initialized || std::memcmp(copies, copies + kWalIndexHeaderSize, kWalIndexHeaderSize) != 0 ||
      !checksum_fits(copies)) {
    return std::nullopt;
  }
  return decode(copies);
}

}  // namespace offprint::sqlite
