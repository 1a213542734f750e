#include "sqlite/btree_page.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

namespace offprint::sqlite {
namespace {

constexpr std::size_t kFileHeaderSize = 100;  // before the b-tree of page 1
constexpr std::size_t kReservedOffset = 20;   // of that header
constexpr std::size_t kLeafHeaderSize = 8, kInteriorHeaderSize = 12;
constexpr std::size_t kVarintSizeMax = 9;

std::size_t begin_of(std::uint32_t number) { return number == 1 ? kFileHeaderSize : 0; }

bool is_kind(std::uint8_t byte) { return byte == 2 || byte == 5 || byte == 10 || byte == 13; }

// How much of a payload stays in the page (the same document, "Cell Payload Overflow Pages").
std::uint64_t local_size(std::uint64_t payload, std::uint32_t usable, bool is_table) {
  const std::uint64_t u = usable;
  const std::uint64_t most = is_table ? u - 35 : ((u - 12) * 64 / 255) - 23;
  if (payload <= most) return payload;
  const std::uint64_t least = ((u - 12) * 32 / 255) - 23;
  const std::uint64_t fitting = least + (payload - least) % (u - 4);
  return fitting <= most ? fitting : least;
}

}  // namespace

Varint read_varint(ByteView bytes) {
  Varint read;
  const std::size_t most = std::min(bytes.size(), kVarintSizeMax);
  while (read.size < most) {
    const std::uint8_t byte = bytes[read.size++];
    if (read.size == kVarintSizeMax) {
      read.value = read.value << 8 | byte;
      return read;
    }
    read.value = read.value << 7 | (byte & 0x7f);
    if ((byte & 0x80) == 0) return read;
  }
  return {};
}

std::uint32_t usable_size(ByteView page_one) {
  return static_cast<std::uint32_t>(page_one.size()) - page_one[kReservedOffset];
}

bool BtreePage::is_one(ByteView image, std::uint32_t number) {
  const std::size_t begin = begin_of(number);
  return begin < image.size() && is_kind(image[begin]);
}

Result<BtreePage> BtreePage::parse(ByteView image, std::uint32_t number, std::uint32_t usable) {
  const std::size_t begin = begin_of(number);
  auto wrong = [&](const char* what) {
    return fail(Code::kCorrupt, fmt::format("page {} of a b-tree: {}", number, what));
  };
  constexpr std::uint32_t kUsableMin = 480;  // SQLite's own
  if (usable < kUsableMin || usable > image.size()) return wrong("its size is wrong");
  if (!is_kind(image[begin])) return wrong("it is none");
  BtreePage page;
  page.image_ = image.first(usable);
  page.usable_ = usable;
  page.kind_ = static_cast<Kind>(image[begin]);
  page.cell_count_ = load_be<std::uint16_t>(image.data() + begin + 3);
  page.pointers_ = begin + (page.is_leaf() ? kLeafHeaderSize : kInteriorHeaderSize);
  if (page.pointers_ + 2 * page.cell_count_ > usable) return wrong("it has too many cells");
  if (!page.is_leaf())
    page.last_child_ = load_be<std::uint32_t>(image.data() + begin + kLeafHeaderSize);
  return page;
}

Result<bool> clear_unused(std::span<std::uint8_t> image, std::uint32_t number,
                          std::uint32_t usable) {
  OFFPRINT_TRY_ASSIGN(BtreePage page, BtreePage::parse(image, number, usable));
  auto wrong = [&] {
    return fail(Code::kCorrupt, fmt::format("page {} of a b-tree: its free space", number));
  };
  constexpr std::size_t kFreeHeaderSize = 4, kSizeMax = 65'536;
  const std::uint8_t* header = image.data() + begin_of(number);
  const std::size_t pointers_end = begin_of(number) +
                                   (page.is_leaf() ? kLeafHeaderSize : kInteriorHeaderSize) +
                                   2 * page.cell_count();
  std::size_t content = load_be<std::uint16_t>(header + 5);
  if (content == 0) content = kSizeMax;
  if (content < pointers_end || content > usable) return wrong();
  std::vector<std::pair<std::size_t, std::size_t>> ranges = {{pointers_end, content}};
  std::size_t from = content;
  for (std::size_t free = load_be<std::uint16_t>(header + 1); free != 0;) {
    if (free < from || free + kFreeHeaderSize > usable) return wrong();
    const std::size_t size = load_be<std::uint16_t>(image.data() + free + 2);
    if (size < kFreeHeaderSize || free + size > usable) return wrong();
    ranges.emplace_back(free + kFreeHeaderSize, free + size);
    from = free + size;
    free = load_be<std::uint16_t>(image.data() + free);
  }
  bool was_there = false;
  for (const auto& [begin, end] : ranges) {
    auto unused = image.subspan(begin, end - begin);
    was_there = was_there || std::ranges::any_of(unused, [](auto byte) { return byte != 0; });
    std::ranges::fill(unused, std::uint8_t{0});
  }
  return was_there;
}

Result<BtreePage::Cell> BtreePage::cell(std::size_t index) const {
  auto wrong = [] { return fail(Code::kCorrupt, "a cell of a b-tree reaches beyond its page"); };
  const std::size_t place = load_be<std::uint16_t>(image_.data() + pointers_ + 2 * index);
  if (place >= image_.size()) return wrong();
  ByteView rest = image_.subspan(place);
  Cell cell;
  if (!is_leaf()) {
    if (rest.size() < 4) return wrong();
    cell.child = load_be<std::uint32_t>(rest.data());
    rest = rest.subspan(4);
  }
  if (kind_ != Kind::kInteriorTable) {
    const Varint size = read_varint(rest);
    if (size.size == 0) return wrong();
    cell.payload_size = size.value;
    rest = rest.subspan(size.size);
  }
  if (is_table()) {
    const Varint rowid = read_varint(rest);
    if (rowid.size == 0) return wrong();
    cell.rowid = static_cast<std::int64_t>(rowid.value);
    rest = rest.subspan(rowid.size);
  }
  if (kind_ == Kind::kInteriorTable) return cell;
  constexpr std::uint64_t kPayloadMax = 0x7fffffff;
  if (cell.payload_size > kPayloadMax) return wrong();
  const std::uint64_t local = local_size(cell.payload_size, usable_, is_table());
  if (local > rest.size()) return wrong();
  cell.payload = rest.first(local);
  if (local == cell.payload_size) return cell;
  if (local + 4 > rest.size()) return wrong();
  cell.overflow = load_be<std::uint32_t>(rest.data() + local);
  return cell;
}

}  // namespace offprint::sqlite
