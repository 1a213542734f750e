#include "tail/wal_reader.h"

#include <algorithm>
#include <limits>

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

bool is_big_endian(const std::uint8_t* header) { return (load_be<std::uint32_t>(header) & 1) != 0; }

// The checksum before the first frame that is to be read.
Result<Sum> begin_sum(const ReadWal& wal, const WalPlace& from, const WalPlace& to) {
  std::uint8_t header[kWalHeaderSize];
  OFFPRINT_TRY(read_all(wal, 0, header));
  auto word = [&](std::size_t at) { return load_be<std::uint32_t>(header + at); };
  if ((word(0) & ~1u) != kMagic || word(4) != kVersion) return lost("its header is another one");
  Sum sum(is_big_endian(header), 0, 0);
  sum.add(ByteView(header, kSummedOfWalHeader));
  if (!sum.is(word(24), word(28))) return lost("its header is damaged");
  if (word(8) != to.page_size || word(16) != to.salt1 || word(20) != to.salt2)
    return lost("it was begun again");
  if (from.last_frame == 0 || !from.same_generation(to)) return sum;
  return Sum(is_big_endian(header), from.checksum1, from.checksum2);
}

// One page each, that with the last frame.
void keep_newest(std::vector<WalPage>& pages) {
  std::sort(pages.begin(), pages.end(), [](const WalPage& a, const WalPage& b) {
    if (a.page != b.page) return a.page < b.page;
    return a.is_before != b.is_before ? b.is_before : a.frame > b.frame;
  });
  auto end = std::unique(pages.begin(), pages.end(),
                         [](const WalPage& a, const WalPage& b) { return a.page == b.page; });
  pages.erase(end, pages.end());
}

// SQLite fills up a disk's sector with copies of a commit's last frame, where that may tear.
bool is_copy(ByteView one, ByteView other) {
  FrameHeader first = FrameHeader::decode(one.data());
  FrameHeader second = FrameHeader::decode(other.data());
  return first.page == second.page && first.size_after_commit == second.size_after_commit &&
         std::ranges::equal(one.subspan(kFrameHeaderSize), other.subspan(kFrameHeaderSize));
}

// The frames of a generation behind a place, one after the other, each proven by the running
// checksum.
class Frames {
 public:
  // `sum` is the checksum at frame `last` of the generation that `of` names.
  Frames(const ReadWal& wal, const WalPlace& of, Sum sum, std::uint32_t last)
      : wal_(wal), of_(of), size_(kFrameHeaderSize + of.page_size), sum_(sum), frame_(last) {}

  // The next one; no more than those up to `limit` are read. kBehind: there is none.
  Result<> next(std::uint32_t limit) {
    if (at_ + size_ > piece_.size()) OFFPRINT_TRY(read_piece(limit - frame_));
    ByteView bytes = ByteView(piece_).subspan(at_, size_);
    header_ = FrameHeader::decode(bytes.data());
    if (header_.salt1 != of_.salt1 || header_.salt2 != of_.salt2)
      return lost(fmt::format("frame {} is of another generation", frame_ + 1));
    if (header_.page == 0) return lost(fmt::format("frame {} is of no page", frame_ + 1));
    sum_.add(bytes.first(kSummedOfFrameHeader));
    sum_.add(bytes.subspan(kFrameHeaderSize));
    if (!sum_.is(header_.checksum1, header_.checksum2))
      return lost(fmt::format("frame {} has another checksum", frame_ + 1));
    const ByteView before =
        at_ == 0 ? ByteView(before_piece_) : ByteView(piece_).subspan(at_ - size_, size_);
    may_be_copy_ = !before.empty() && is_copy(before, bytes);
    at_ += size_;
    ++frame_;
    return {};
  }
  const FrameHeader& header() const { return header_; }
  std::uint32_t frame() const { return frame_; }
  const Sum& sum() const { return sum_; }
  // Counts what next() read, and keeps its page.
  void add_to(WalChanges& changes, PageNo page_max, bool is_before) const {
    if (header_.page <= page_max) changes.pages.push_back({header_.page, frame_, is_before});
    if (header_.size_after_commit != 0) ++(may_be_copy_ ? changes.copies : changes.commits);
    ++changes.frames;
  }

 private:
  Result<> read_piece(std::uint32_t count_max) {
    if (at_ >= size_) {
      const auto end = piece_.begin() + static_cast<std::ptrdiff_t>(at_);
      before_piece_.assign(end - static_cast<std::ptrdiff_t>(size_), end);
    }
    const std::size_t at_once = std::max<std::size_t>(1, kPieceBytes / size_);
    piece_.resize(std::min<std::size_t>(at_once, count_max) * size_);
    OFFPRINT_TRY_ASSIGN(std::size_t size,
                        wal_(sqlite::frame_offset(frame_ + 1, of_.page_size), piece_));
    piece_.resize(size);
    at_ = 0;
    if (size < size_) return lost("it is shorter");
    return {};
  }

  const ReadWal& wal_;
  const WalPlace& of_;
  const std::size_t size_;
  Sum sum_;
  std::uint32_t frame_;
  Bytes piece_, before_piece_;  // the latter is a frame, or nothing
  std::size_t at_ = 0;          // of the next one in piece_
  FrameHeader header_;
  bool may_be_copy_ = false;
};

}  // namespace

Result<WalChanges> read_wal(const ReadWal& wal, const WalPlace& from, const WalPlace& to) {
  WalChanges changes;
  const std::uint32_t last = from.same_generation(to) ? from.last_frame : 0;
  if (last > to.last_frame) return lost("it has fewer frames");
  if (last == to.last_frame) return changes;
  OFFPRINT_TRY_ASSIGN(Sum sum, begin_sum(wal, from, to));
  Frames frames(wal, to, sum, last);
  while (frames.frame() < to.last_frame) {
    OFFPRINT_TRY(frames.next(to.last_frame));
    frames.add_to(changes, to.page_count, false);
  }
  const FrameHeader& header = frames.header();
  if (header.size_after_commit == 0 || header.size_after_commit != to.page_count ||
      !frames.sum().is(to.checksum1, to.checksum2))
    return lost("its last frame is no such commit");
  keep_newest(changes.pages);
  return changes;
}

Result<WalChanges> read_wal_rest(const ReadWal& wal, const WalPlace& from) {
  WalChanges rest;
  if (from.last_frame == 0) return rest;
  std::uint8_t header[kWalHeaderSize];
  OFFPRINT_TRY(read_all(wal, 0, header));  // of the next one: it says the order of bytes
  Frames frames(wal, from, Sum(is_big_endian(header), from.checksum1, from.checksum2),
                from.last_frame);
  WalChanges read;
  std::size_t committed = 0;  // of its pages
  PageNo size = from.page_count;
  for (;;) {
    Result<> next = frames.next(std::numeric_limits<std::uint32_t>::max());
    if (!next && next.error().code() != Code::kBehind) return fail(std::move(next).error());
    if (!next) break;
    frames.add_to(read, std::numeric_limits<PageNo>::max(), true);
    if (frames.header().size_after_commit == 0) continue;
    // What pages above it are later, the -wal does not say.
    if (frames.header().size_after_commit < size) return lost("the database became smaller");
    size = frames.header().size_after_commit;
    committed = read.pages.size();
    rest = {{}, read.commits, read.copies, read.frames};
  }
  read.pages.resize(committed);
  rest.pages = std::move(read.pages);
  keep_newest(rest.pages);
  return rest;
}

WalChanges join_changes(WalChanges before, const WalChanges& after, PageNo page_count) {
  before.pages.insert(before.pages.end(), after.pages.begin(), after.pages.end());
  std::erase_if(before.pages, [&](const WalPage& page) { return page.page > page_count; });
  keep_newest(before.pages);
  before.commits += after.commits;
  before.copies += after.copies;
  before.frames += after.frames;
  return before;
}

Result<> read_frame(const ReadWal& wal, const WalPlace& of, const WalPage& page,
                    std::span<std::uint8_t> image) {
  const std::uint64_t offset = sqlite::frame_offset(page.frame, of.page_size);
  OFFPRINT_TRY(read_all(wal, offset + kFrameHeaderSize, image));
  std::uint8_t bytes[kFrameHeaderSize];  // after the image: a writer begins with the header
  OFFPRINT_TRY(read_all(wal, offset, bytes));
  FrameHeader header = FrameHeader::decode(bytes);
  if (header.page != page.page || header.salt1 != of.salt1 || header.salt2 != of.salt2)
    return lost("a frame was written over");
  return {};
}

}  // namespace offprint::tail
