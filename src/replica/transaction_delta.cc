#include "replica/transaction_delta.h"

#include <algorithm>
#include <memory>

#include <fmt/format.h>
#include <zstd.h>

#include "base/assert.h"
#include "ltx/checksum.h"

namespace offprint::replica {
namespace {

constexpr std::size_t kHeadSize = 44;
constexpr std::size_t kProofAt = 36;
// Pages are compressed together, for they resemble each other, up to so many bytes of images. NOTE:
// on the wire.
constexpr std::size_t kGroupMax = 256 << 10;
// Reaches over a group's old and new images.
constexpr int kWindowLog = 19;
// Level 3 makes 20 % less than level 1 of transactions with many pages, in the same time.
constexpr int kLevel = 3;

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

// How many of the next pages are compressed together.
std::size_t group_size(std::size_t pages_left, std::size_t page_size) {
  return std::min(pages_left, std::max<std::size_t>(1, kGroupMax / page_size));
}

void append_varint(Bytes& to, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) to.push_back(static_cast<std::uint8_t>(value | 0x80));
  to.push_back(static_cast<std::uint8_t>(value));
}

std::unexpected<Error> damaged(std::string_view what) {
  return fail(Code::kCorrupt, fmt::format("a transaction's delta is damaged: {}", what));
}

Result<std::uint64_t> take_varint(ByteView& from) {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 35 && !from.empty(); shift += 7) {
    const std::uint8_t byte = from[0];
    from = from.subspan(1);
    value |= std::uint64_t{byte & 0x7fU} << shift;
    if (byte < 0x80) return value;
  }
  return damaged("a number");
}

// Appends the group's size and its zstd frame.
void append_group(Bytes& to, ByteView before, ByteView after) {
  thread_local std::unique_ptr<ZSTD_CCtx, FreeContext> context(ZSTD_createCCtx());
  OFFPRINT_ASSERT(context != nullptr);
  auto set = [](ZSTD_cParameter parameter, int value) {
    OFFPRINT_ASSERT(!ZSTD_isError(ZSTD_CCtx_setParameter(context.get(), parameter, value)));
  };
  ZSTD_CCtx_reset(context.get(), ZSTD_reset_session_and_parameters);
  set(ZSTD_c_compressionLevel, kLevel);
  set(ZSTD_c_windowLog, kWindowLog);
  set(ZSTD_c_contentSizeFlag, 0);
  if (!before.empty()) ZSTD_CCtx_refPrefix(context.get(), before.data(), before.size());
  thread_local Bytes packed;
  packed.resize(ZSTD_compressBound(after.size()));
  const std::size_t size =
      ZSTD_compress2(context.get(), packed.data(), packed.size(), after.data(), after.size());
  OFFPRINT_ASSERT(!ZSTD_isError(size));
  append_varint(to, size);
  append(to, ByteView(packed).first(size));
}

bool expand_group(ByteView packed, ByteView before, std::span<std::uint8_t> after) {
  thread_local std::unique_ptr<ZSTD_DCtx, FreeContext> context(ZSTD_createDCtx());
  OFFPRINT_ASSERT(context != nullptr);
  ZSTD_DCtx_reset(context.get(), ZSTD_reset_session_and_parameters);
  if (!before.empty()) ZSTD_DCtx_refPrefix(context.get(), before.data(), before.size());
  const std::size_t size =
      ZSTD_decompressDCtx(context.get(), after.data(), after.size(), packed.data(), packed.size());
  return size == after.size();
}

// Of what a delta says and what it becomes, and of what it is to be applied upon. One running sum
// over all images: sums of each page, added up, would not see an error that two pages have.
class Proof {
 public:
  Proof(Checksum before, ByteView head) {
    std::uint8_t number[8];
    store_be<std::uint64_t>(number, before.value);
    crc_.update(number);
    crc_.update(head.first(kProofAt));
  }
  void add(PageNo page, ByteView image) {
    std::uint8_t number[4];
    store_be<std::uint32_t>(number, page);
    crc_.update(number);
    crc_.update(image);
  }
  std::uint64_t value() const { return crc_.value(); }

 private:
  ltx::Crc64 crc_;
};

struct ListedPage {
  PageNo number;
  bool existed;
};

struct ParsedDelta {
  Epoch epoch;
  ltx::Header header;
  Checksum after;
  std::uint64_t proof = 0;
  std::vector<ListedPage> pages;
  ByteView groups;
};

Result<> take_pages(ByteView& rest, ParsedDelta& parsed) {
  OFFPRINT_TRY_ASSIGN(std::uint64_t count, take_varint(rest));
  if (count > kDeltaImagesMax / parsed.header.page_size || count > rest.size())
    return damaged("more pages than allowed");
  std::uint64_t last = 0;
  parsed.pages.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    OFFPRINT_TRY_ASSIGN(std::uint64_t entry, take_varint(rest));
    last += 1 + (entry >> 1);
    if (last > parsed.header.page_count || last == ltx::lock_page(parsed.header.page_size))
      return damaged("a page that cannot be");
    parsed.pages.push_back({static_cast<PageNo>(last), (entry & 1) == 0});
  }
  return {};
}

Result<ParsedDelta> parse(ByteView delta) {
  if (delta.size() < kHeadSize) return damaged("it is cut off");
  const std::uint8_t* from = delta.data();
  ParsedDelta parsed;
  parsed.epoch.value = load_be<std::uint32_t>(from);
  parsed.header.min_txid.value = load_be<std::uint64_t>(from + 4);
  parsed.header.max_txid = parsed.header.min_txid;
  parsed.header.timestamp_ms = static_cast<std::int64_t>(load_be<std::uint64_t>(from + 12));
  parsed.header.page_size = load_be<std::uint32_t>(from + 20);
  parsed.header.page_count = load_be<std::uint32_t>(from + 24);
  parsed.after.value = load_be<std::uint64_t>(from + 28);
  parsed.proof = load_be<std::uint64_t>(from + kProofAt);
  const std::uint32_t size = parsed.header.page_size;
  if (size < 512 || size > 65536 || (size & (size - 1)) != 0) return damaged("its page size");
  ByteView rest = delta.subspan(kHeadSize);
  OFFPRINT_TRY(take_pages(rest, parsed));
  parsed.groups = rest;
  return parsed;
}

}  // namespace

bool has_encoding(std::string_view list, std::string_view encoding) {
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    std::string_view one = list.substr(0, comma);
    while (one.starts_with(' ') || one.starts_with('\t')) one.remove_prefix(1);
    while (one.ends_with(' ') || one.ends_with('\t')) one.remove_suffix(1);
    if (one == encoding) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

std::optional<Bytes> encode_delta(const DeltaHead& head, std::span<const DeltaPage> pages) {
  if (pages.size() > kDeltaImagesMax / head.page_size) return std::nullopt;
  Bytes delta;
  append_be<std::uint32_t>(delta, head.epoch.value);
  append_be<std::uint64_t>(delta, head.txid.value);
  append_be<std::uint64_t>(delta, static_cast<std::uint64_t>(head.timestamp_ms));
  append_be<std::uint32_t>(delta, head.page_size);
  append_be<std::uint32_t>(delta, head.page_count);
  append_be<std::uint64_t>(delta, head.after.value);
  Proof proof(head.before, delta);
  append_be<std::uint64_t>(delta, 0);
  append_varint(delta, pages.size());
  PageNo last = 0;
  for (const DeltaPage& page : pages) {
    OFFPRINT_ASSERT(page.number > last && page.after.size() == head.page_size);
    append_varint(delta,
                  (std::uint64_t{page.number} - last - 1) << 1 | (page.before.empty() ? 1U : 0U));
    last = page.number;
    proof.add(page.number, page.after);
  }
  store_be<std::uint64_t>(delta.data() + kProofAt, proof.value());
  Bytes before, after;
  while (!pages.empty()) {
    const auto group = pages.first(group_size(pages.size(), head.page_size));
    pages = pages.subspan(group.size());
    before.clear();
    after.clear();
    for (const DeltaPage& page : group) {
      append(before, page.before);
      append(after, page.after);
    }
    append_group(delta, before, after);
    if (delta.size() > kDeltaMax) return std::nullopt;
  }
  return delta;
}

Result<DeltaTransaction> rebuild(ByteView delta, Checksum before, std::uint32_t page_size,
                                 const FormerPage& former) {
  OFFPRINT_TRY_ASSIGN(ParsedDelta parsed, parse(delta));
  auto other = [] {
    return fail(Code::kConflict, "the copy has other pages than the primary had");
  };
  if (parsed.header.page_size != page_size) return other();
  Proof proof(before, delta);
  DeltaTransaction made{parsed.epoch, {parsed.header, {}, {parsed.after, {}}}};
  made.file.header.pre_apply = before;
  made.file.pages.reserve(parsed.pages.size());
  std::span<const ListedPage> pages = parsed.pages;
  Bytes old, fresh;
  while (!pages.empty()) {
    const auto group = pages.first(group_size(pages.size(), page_size));
    pages = pages.subspan(group.size());
    old.clear();
    for (const ListedPage& page : group) {
      if (!page.existed) continue;
      old.resize(old.size() + page_size);
      OFFPRINT_TRY_ASSIGN(bool found, former(page.number, std::span(old).last(page_size)));
      if (!found) return other();
    }
    OFFPRINT_TRY_ASSIGN(std::uint64_t size, take_varint(parsed.groups));
    if (size > parsed.groups.size()) return damaged("it is cut off");
    fresh.resize(group.size() * page_size);
    if (!expand_group(parsed.groups.first(size), old, fresh)) return other();
    parsed.groups = parsed.groups.subspan(size);
    for (std::size_t i = 0; i < group.size(); ++i) {
      const ByteView image = ByteView(fresh).subspan(i * page_size, page_size);
      proof.add(group[i].number, image);
      made.file.pages.emplace_back(group[i].number, Bytes(image.begin(), image.end()));
    }
  }
  if (proof.value() != parsed.proof) return other();
  return made;
}

}  // namespace offprint::replica
