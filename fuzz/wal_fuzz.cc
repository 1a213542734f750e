// Reads arbitrary bytes as a program's -wal. What our reader takes between two places must be what
// a plain walk over the frames finds there; whatever does not lead to a place must be refused.
//
// The first byte of the input chooses what is mended before, so that deeper code is reached: bit 0
// the header, bit 1 salts and checksums of the frames. The second one is mixed into a place that
// is asked for, the rest is the -wal.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <map>
#include <vector>

#include "base/assert.h"
#include "tail/wal_reader.h"

namespace {

using namespace offprint;
using namespace offprint::tail;
using sqlite::FrameHeader;
using sqlite::kFrameHeaderSize;
using sqlite::kWalHeaderSize;

constexpr std::uint32_t kMagic = 0x377f0682;
constexpr std::size_t kPlacesMax = 8;

struct Sum {
  bool big_endian = false;
  std::uint32_t one = 0, two = 0;
  void add(ByteView bytes) {
    for (std::size_t at = 0; at < bytes.size(); at += 8) {
      one += word(bytes.data() + at) + two;
      two += word(bytes.data() + at + 4) + one;
    }
  }
  std::uint32_t word(const std::uint8_t* at) const {
    std::uint32_t big = load_be<std::uint32_t>(at);
    return big_endian ? big : std::byteswap(big);
  }
};

void mend_header(Bytes& wal) {
  if (wal.size() < kWalHeaderSize) return;
  store_be<std::uint32_t>(wal.data(), kMagic | (wal[3] & 1u));
  store_be<std::uint32_t>(wal.data() + 4, 3007000u);
  store_be<std::uint32_t>(wal.data() + 8, 512u << (wal[11] % 3));
  Sum sum{(wal[3] & 1) != 0};
  sum.add(ByteView(wal).first(24));
  store_be<std::uint32_t>(wal.data() + 24, sum.one);
  store_be<std::uint32_t>(wal.data() + 28, sum.two);
}

// One commit after the other, as far as all fits.
std::vector<WalPlace> walk(Bytes& wal, bool mend, std::map<std::uint32_t, PageNo>& pages) {
  std::vector<WalPlace> commits;
  if (wal.size() < kWalHeaderSize) return commits;
  auto word = [&](std::size_t at) { return load_be<std::uint32_t>(wal.data() + at); };
  WalPlace place;
  place.page_size = word(8);
  place.salt1 = word(16);
  place.salt2 = word(20);
  Sum sum{(word(0) & 1) != 0};
  sum.add(ByteView(wal).first(24));
  if ((word(0) & ~1u) != kMagic || word(4) != 3007000u || sum.one != word(24) ||
      sum.two != word(28) || !std::has_single_bit(place.page_size) || place.page_size < 512 ||
      place.page_size > 65536)
    return commits;
  const std::size_t frame_size = kFrameHeaderSize + place.page_size;
  for (std::size_t at = kWalHeaderSize; at + frame_size <= wal.size(); at += frame_size) {
    std::uint8_t* frame = wal.data() + at;
    sum.add(ByteView(frame, 8));
    sum.add(ByteView(frame + kFrameHeaderSize, place.page_size));
    if (mend) {
      for (auto [offset, value] : {std::pair{8, place.salt1}, std::pair{12, place.salt2},
                                   std::pair{16, sum.one}, std::pair{20, sum.two}})
        store_be<std::uint32_t>(frame + offset, value);
    }
    FrameHeader header = FrameHeader::decode(frame);
    if (header.page == 0 || header.salt1 != place.salt1 || header.salt2 != place.salt2 ||
        header.checksum1 != sum.one || header.checksum2 != sum.two)
      return commits;
    pages[++place.last_frame] = header.page;
    if (header.size_after_commit == 0) continue;
    place.page_count = header.size_after_commit;
    place.checksum1 = sum.one;
    place.checksum2 = sum.two;
    commits.push_back(place);
  }
  return commits;
}

void check(const ReadWal& wal, const WalPlace& from, const WalPlace& to,
           const std::map<std::uint32_t, PageNo>& frames) {
  if (auto rest = read_wal_rest(wal, from)) {
    Bytes image(from.page_size);
    OFFPRINT_ASSERT(rest->commits + rest->copies <= rest->frames);
    for (const WalPage& page : rest->pages)
      OFFPRINT_ASSERT(read_frame(wal, from, page, image).has_value());
  }
  auto read = read_wal(wal, from, to);
  OFFPRINT_ASSERT(read.has_value());
  std::map<PageNo, std::uint32_t> expected;
  for (const auto& [frame, page] : frames) {
    if (frame > from.last_frame && frame <= to.last_frame && page <= to.page_count)
      expected[page] = frame;
  }
  OFFPRINT_ASSERT(read->pages.size() == expected.size());
  OFFPRINT_ASSERT(read->commits <= to.last_frame - from.last_frame);
  Bytes image(to.page_size);
  for (const WalPage& page : read->pages) {
    OFFPRINT_ASSERT(expected.at(page.page) == page.frame);
    OFFPRINT_ASSERT(read_frame(wal, to, page, image).has_value());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  Bytes wal(data + 2, data + size);
  if ((data[0] & 1) != 0) mend_header(wal);
  std::map<std::uint32_t, PageNo> frames;
  std::vector<WalPlace> commits = walk(wal, (data[0] & 2) != 0, frames);
  ReadWal reader = [&wal](std::uint64_t offset, std::span<std::uint8_t> to) -> Result<std::size_t> {
    if (offset >= wal.size()) return std::size_t{0};
    std::size_t count = std::min<std::size_t>(to.size(), wal.size() - offset);
    std::copy_n(wal.begin() + static_cast<std::ptrdiff_t>(offset), count, to.begin());
    return count;
  };
  WalPlace from;  // nowhere
  from.salt1 = commits.empty() ? 1 : ~commits[0].salt1;
  const std::size_t step = std::max<std::size_t>(1, commits.size() / kPlacesMax);
  for (std::size_t i = 0; i < commits.size(); i += step) {
    WalPlace nowhere;
    nowhere.salt1 = ~commits[i].salt1;
    check(reader, nowhere, commits[i], frames);
    check(reader, from, commits[i], frames);
    from = commits[i];
  }
  WalPlace other = commits.empty() ? WalPlace{} : commits.back();
  if (commits.empty()) {
    other.page_size = 512;
    other.last_frame = 1 + data[1] % 4;
    other.page_count = 1;
    if (wal.size() >= kWalHeaderSize) {
      other.salt1 = load_be<std::uint32_t>(wal.data() + 16);
      other.salt2 = load_be<std::uint32_t>(wal.data() + 20);
    }
  } else {
    other.checksum1 ^= 1u + data[1];
  }
  WalPlace nowhere;
  nowhere.salt1 = ~other.salt1;
  OFFPRINT_ASSERT(!read_wal(reader, nowhere, other).has_value());
  return 0;
}
