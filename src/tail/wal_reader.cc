#include "tail/wal_reader.h"

#include <algorithm>

#include <fmt/format.h>

namespace offprint::tail {
namespace {

using sqlite::FrameHeader;
using sqlite::kFrameHeaderSize;
using sqlite::kWalHeaderSize;

constexpr std::uint32_t kMagic = 0x377f0682;  // its last bit: checksums of big-endian words
constexpr std::uint32_t kVersion = 3007000;
constexpr std::size_t kSummedOfFrameHeader = 8;
constexpr std::size_t kSummedOfWalHeader = 24;
constexpr std::size_t kPieceBytes = 256 << 10;

std::unexpected<Error> lost(std::string why) {
  return fail(Code::kBehind, "the -wal does not go on where it was read last: " + std::move(why));
}

// SQLite's running checksum of words in either order.
class Sum {
 public:
  Sum(bool big_endian, std::uint32_t sum1, std::uint32_t sum2)
      : big_endian_(big_endian), sum1_(sum1), sum2_(sum2) {}

  void add(ByteView bytes) {  // a multiple of 8
    for (std::size_t at = 0; at < bytes.size(); at += 8) {
      sum1_ += word(bytes.data() + at) + sum2_;
      sum2_ += word(bytes.data() + at + 4) + sum1_;
    }
  }
  bool is(std::uint32_t sum1, std::uint32_t sum2) const { return sum1_ == sum1 && sum2_ == sum2; }

 private:
  std::uint32_t word(const std::uint8_t* from) const {
    std::uint32_t big = load_be<std::uint32_t>(from);
    return big_endian_ ? big : __builtin_bswap32(big);
  }

  const bool big_endian_;
  std::uint32_t sum1_, sum2_;
};

Result<> read_all(const ReadWal& wal, std::uint64_t offset, std::span<std::uint8_t> to) {
  OFFPRINT_TRY_ASSIGN(std::size_t size, wal(offset, to));
  if (size < to.size()) return lost("it is shorter");
  return {};
}

// The checksum before the first frame that is to be read.
Result<Sum> begin_sum(const ReadWal& wal, const WalPlace& from, const WalPlace& to) {
  std::uint8_t header[kWalHeaderSize];
  OFFPRINT_TRY(read_all(wal, 0, header));
  auto word = [&](std::size_t at) { return load_be<std::uint32_t>(header + at); };
  if ((word(0) & ~1u) != kMagic || word(4) != kVersion) return lost("its header is another one");
  bool big_endian = (word(0) & 1) != 0;
  Sum sum(big_endian, 0, 0);
  sum.add(ByteView(header, kSummedOfWalHeader));
  if (!sum.is(word(24), word(28))) return lost("its header is damaged");
  if (word(8) != to.page_size || word(16) != to.salt1 || word(20) != to.salt2)
    return lost("it was begun again");
  if (from.last_frame == 0 || !from.same_generation(to)) return sum;
  return Sum(big_endian, from.checksum1, from.checksum2);
}

// One page each, that with the last frame.
void keep_newest(std::vector<WalPage>& pages) {
  std::sort(pages.begin(), pages.end(), [](const WalPage& a, const WalPage& b) {
    return a.page != b.page ? a.page < b.page : a.frame > b.frame;
  });
  auto end = std::unique(pages.begin(), pages.end(),
                         [](const WalPage& a, const WalPage& b) { return a.page == b.page; });
  pages.erase(end, pages.end());
}

// SQLite fills up a disk's sector with copies of a commit's last frame, where that may tear.
bool repeats_frame_before(ByteView piece, std::size_t at, std::size_t frame_size) {
  FrameHeader one = FrameHeader::decode(piece.data() + at - frame_size);
  FrameHeader other = FrameHeader::decode(piece.data() + at);
  return one.page == other.page && one.size_after_commit == other.size_after_commit &&
         std::ranges::equal(
             piece.subspan(at + kFrameHeaderSize, frame_size - kFrameHeaderSize),
             piece.subspan(at - frame_size + kFrameHeaderSize, frame_size - kFrameHeaderSize));
}

}  // namespace

Result<WalChanges> read_wal(const ReadWal& wal, const WalPlace& from, const WalPlace& to) {
  WalChanges changes;
  std::uint32_t frame = from.same_generation(to) ? from.last_frame : 0;
  if (frame > to.last_frame) return lost("it has fewer frames");
  if (frame == to.last_frame) return changes;
  OFFPRINT_TRY_ASSIGN(Sum sum, begin_sum(wal, from, to));
  const std::size_t frame_size = kFrameHeaderSize + to.page_size;
  const auto at_once =
      static_cast<std::uint32_t>(std::max<std::size_t>(1, kPieceBytes / frame_size));
  Bytes piece;
  FrameHeader header;
  PageNo page_before = 0;
  while (frame < to.last_frame) {
    std::uint32_t count = std::min(at_once, to.last_frame - frame);
    piece.resize(count * frame_size);
    OFFPRINT_TRY(read_all(wal, sqlite::frame_offset(frame + 1, to.page_size), piece));
    for (std::uint32_t i = 0; i < count; ++i) {
      ByteView bytes = ByteView(piece).subspan(i * frame_size, frame_size);
      header = FrameHeader::decode(bytes.data());
      if (header.salt1 != to.salt1 || header.salt2 != to.salt2)
        return lost(fmt::format("frame {} is of another generation", frame + i + 1));
      if (header.page == 0) return lost(fmt::format("frame {} is of no page", frame + i + 1));
      sum.add(bytes.first(kSummedOfFrameHeader));
      sum.add(bytes.subspan(kFrameHeaderSize));
      if (!sum.is(header.checksum1, header.checksum2))
        return lost(fmt::format("frame {} has another checksum", frame + i + 1));
      if (header.page <= to.page_count) changes.pages.push_back({header.page, frame + i + 1});
      bool repeats = i > 0 ? repeats_frame_before(piece, i * frame_size, frame_size)
                           : header.page == page_before;
      changes.commits += header.size_after_commit != 0 && !repeats;
    }
    frame += count;
    page_before = header.page;
  }
  if (header.size_after_commit == 0 || header.size_after_commit != to.page_count ||
      !sum.is(to.checksum1, to.checksum2))
    return lost("its last frame is no such commit");
  keep_newest(changes.pages);
  return changes;
}

Result<> read_frame(const ReadWal& wal, const WalPlace& to, const WalPage& page,
                    std::span<std::uint8_t> image) {
  const std::uint64_t offset = sqlite::frame_offset(page.frame, to.page_size);
  OFFPRINT_TRY(read_all(wal, offset + kFrameHeaderSize, image));
  std::uint8_t bytes[kFrameHeaderSize];  // after the image: a writer begins with the header
  OFFPRINT_TRY(read_all(wal, offset, bytes));
  FrameHeader header = FrameHeader::decode(bytes);
  if (header.page != page.page || header.salt1 != to.salt1 || header.salt2 != to.salt2)
    return lost("a frame was written over");
  return {};
}

}  // namespace offprint::tail
