#include "ltx/lz4_frame.h"

#include <lz4.h>

#include "base/assert.h"

namespace offprint::ltx {
namespace {

constexpr std::uint32_t kMagic = 0x184d2204;

// The frame descriptor's first byte.
constexpr std::uint8_t kVersionMask = 0xc0;
constexpr std::uint8_t kVersion = 0x40;
constexpr std::uint8_t kIndependentBlocks = 0x20;
constexpr std::uint8_t kBlockChecksums = 0x10;
constexpr std::uint8_t kContentSize = 0x08;
constexpr std::uint8_t kContentChecksum = 0x04;
constexpr std::uint8_t kReserved = 0x02;
constexpr std::uint8_t kDictionary = 0x01;

// The descriptor's second byte: the largest block.
constexpr std::uint8_t kBlocksOf64KiB = 4 << 4;
constexpr std::size_t kBlockSizeMax = std::size_t{64} << 10;

// A block's size has this bit when the block is not compressed.
constexpr std::uint32_t kRawBlock = 0x80000000;

std::uint32_t load_le32(const std::uint8_t* from) {
  return __builtin_bswap32(load_be<std::uint32_t>(from));
}
void store_le32(std::uint8_t* to, std::uint32_t value) {
  store_be<std::uint32_t>(to, __builtin_bswap32(value));
}
std::uint64_t load_le64(const std::uint8_t* from) {
  return __builtin_bswap64(load_be<std::uint64_t>(from));
}

std::unexpected<Error> broken(const char* what) {
  return fail(Code::kCorrupt, std::string("LZ4 frame: ") + what);
}

// Takes magic and descriptor; answers its flags.
Result<std::uint8_t> read_descriptor(BufferedInput& input, std::size_t content_size) {
  OFFPRINT_TRY_ASSIGN(ByteView start, input.need(6));
  if (load_le32(start.data()) != kMagic) return broken("wrong magic");
  const std::uint8_t flags = start[4];
  const std::uint8_t block_size = start[5];
  if ((flags & kVersionMask) != kVersion || (flags & kReserved) != 0)
    return broken("unknown version");
  if ((flags & kDictionary) != 0) return broken("needs a dictionary");
  if ((flags & kContentChecksum) == 0) return broken("no content checksum");
  if ((block_size & 0x8f) != 0 || (block_size >> 4) < 4) return broken("unknown block size");

  const std::size_t size = (flags & kContentSize) != 0 ? 15 : 7;
  OFFPRINT_TRY_ASSIGN(ByteView all, input.need(size));
  const ByteView descriptor = all.subspan(4, size - 5);
  if (((xxh32(descriptor) >> 8) & 0xff) != all[size - 1])
    return broken("wrong descriptor checksum");
  if ((flags & kContentSize) != 0 && load_le64(all.data() + 6) != content_size)
    return broken("wrong content size");
  input.take(size);
  return flags;
}

// Inflates one block to page[filled...]; answers how many bytes it held.
Result<std::size_t> inflate_block(ByteView block, bool raw, bool independent,
                                  std::span<std::uint8_t> page, std::size_t filled) {
  const std::size_t room = page.size() - filled;
  std::uint8_t* to = page.data() + filled;
  if (raw) {
    if (block.size() > room) return broken("longer than a page");
    std::memcpy(to, block.data(), block.size());
    return block.size();
  }
  const char* from = reinterpret_cast<const char*>(block.data());
  const char* dictionary = reinterpret_cast<const char*>(page.data());
  const int inflated = LZ4_decompress_safe_usingDict(
      from, reinterpret_cast<char*>(to), static_cast<int>(block.size()), static_cast<int>(room),
      dictionary, independent ? 0 : static_cast<int>(filled));
  if (inflated <= 0) return broken("block does not inflate");
  return static_cast<std::size_t>(inflated);
}

}  // namespace

Result<> read_lz4_frame(BufferedInput& input, std::span<std::uint8_t> page) {
  OFFPRINT_TRY_ASSIGN(const std::uint8_t flags, read_descriptor(input, page.size()));
  const std::size_t block_size_max =
      static_cast<std::size_t>(LZ4_compressBound(static_cast<int>(page.size())));
  std::size_t filled = 0;
  // Every block holds at least one byte, so this ends.
  for (;;) {
    OFFPRINT_TRY_ASSIGN(ByteView field, input.need(4));
    const std::uint32_t size_field = load_le32(field.data());
    input.take(4);
    if (size_field == 0) break;
    const std::size_t size = size_field & ~kRawBlock;
    if (size == 0 || size > block_size_max) return broken("block size out of bounds");
    OFFPRINT_TRY_ASSIGN(ByteView block, input.need(size));
    OFFPRINT_TRY_ASSIGN(const std::size_t inflated,
                        inflate_block(block, (size_field & kRawBlock) != 0,
                                      (flags & kIndependentBlocks) != 0, page, filled));
    const std::uint32_t block_checksum = (flags & kBlockChecksums) != 0 ? xxh32(block) : 0;
    input.take(size);
    filled += inflated;
    if ((flags & kBlockChecksums) != 0) {
      OFFPRINT_TRY_ASSIGN(ByteView stored, input.need(4));
      if (load_le32(stored.data()) != block_checksum) return broken("wrong block checksum");
      input.take(4);
    }
  }
  if (filled != page.size()) return broken("shorter than a page");
  OFFPRINT_TRY_ASSIGN(ByteView stored, input.need(4));
  if (load_le32(stored.data()) != xxh32(page)) return broken("wrong content checksum");
  input.take(4);
  return {};
}

std::size_t write_lz4_frame(ByteView page, void* lz4, int acceleration, std::uint8_t* to) {
  OFFPRINT_ASSERT(!page.empty() && page.size() <= kBlockSizeMax);
  std::uint8_t* at = to;
  store_le32(at, kMagic);
  at[4] = kVersion | kIndependentBlocks | kContentChecksum;
  at[5] = kBlocksOf64KiB;
  at[6] = static_cast<std::uint8_t>(xxh32({at + 4, 2}) >> 8);
  at += 7;

  // 0 when it does not become smaller.
  int size = LZ4_compress_fast_extState(
      lz4, reinterpret_cast<const char*>(page.data()), reinterpret_cast<char*>(at + 4),
      static_cast<int>(page.size()), static_cast<int>(page.size()) - 1, acceleration);
  if (size > 0) {
    store_le32(at, static_cast<std::uint32_t>(size));
    at += 4 + size;
  } else {
    store_le32(at, kRawBlock | static_cast<std::uint32_t>(page.size()));
    std::memcpy(at + 4, page.data(), page.size());
    at += 4 + page.size();
  }
  store_le32(at, 0);
  store_le32(at + 4, xxh32(page));
  return static_cast<std::size_t>(at + 8 - to);
}

std::uint32_t xxh32(ByteView bytes) {
  constexpr std::uint32_t kPrime1 = 2654435761u;
  constexpr std::uint32_t kPrime2 = 2246822519u;
  constexpr std::uint32_t kPrime3 = 3266489917u;
  constexpr std::uint32_t kPrime4 = 668265263u;
  constexpr std::uint32_t kPrime5 = 374761393u;

  const std::uint8_t* at = bytes.data();
  std::size_t left = bytes.size();
  std::uint32_t hash = kPrime5;
  if (left >= 16) {
    std::uint32_t lanes[4] = {kPrime1 + kPrime2, kPrime2, 0, 0u - kPrime1};
    for (; left >= 16; left -= 16) {
      for (std::uint32_t& lane : lanes) {
        lane = std::rotl(lane + load_le32(at) * kPrime2, 13) * kPrime1;
        at += 4;
      }
    }
    hash = std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) +
           std::rotl(lanes[3], 18);
  }
  hash += static_cast<std::uint32_t>(bytes.size());
  for (; left >= 4; at += 4, left -= 4)
    hash = std::rotl(hash + load_le32(at) * kPrime3, 17) * kPrime4;
  for (; left > 0; ++at, --left) hash = std::rotl(hash + *at * kPrime5, 11) * kPrime1;
  hash = (hash ^ (hash >> 15)) * kPrime2;
  hash = (hash ^ (hash >> 13)) * kPrime3;
  return hash ^ (hash >> 16);
}

}  // namespace offprint::ltx
