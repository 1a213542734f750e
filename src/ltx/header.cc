#include <fmt/format.h>

#include <bit>

#include "ltx/checksum.h"
#include "ltx/layout.h"

namespace offprint::ltx {
namespace {

constexpr std::uint8_t kMagic[4] = {'L', 'T', 'X', '1'};

// Offsets of the header's fields; what lies between the last one and kHeaderSize is reserved.
constexpr std::size_t kFlagsAt = 4;
constexpr std::size_t kPageSizeAt = 8;
constexpr std::size_t kPageCountAt = 12;
constexpr std::size_t kMinTxIdAt = 16;
constexpr std::size_t kMaxTxIdAt = 24;
constexpr std::size_t kTimestampAt = 32;
constexpr std::size_t kPreApplyAt = 40;
constexpr std::size_t kWalOffsetAt = 48;
constexpr std::size_t kWalSizeAt = 56;
constexpr std::size_t kWalSalt1At = 64;
constexpr std::size_t kWalSalt2At = 68;
constexpr std::size_t kNodeIdAt = 72;
constexpr std::size_t kReservedAt = 80;
static_assert(kReservedAt + 20 == kHeaderSize);

std::unexpected<Error> broken(std::string rule) {
  return fail(Code::kCorrupt, "LTX header: " + std::move(rule));
}

Result<> validate_wal_position(const Header& header) {
  if (header.wal_offset < 0) return broken("negative WAL offset");
  if (header.wal_size < 0) return broken("negative WAL size");
  if (header.wal_offset == 0) {
    if (header.wal_size != 0) return broken("WAL size without WAL offset");
    if ((header.wal_salt1 | header.wal_salt2) != 0) return broken("WAL salt without WAL offset");
  }
  return {};
}

Result<> validate_pre_apply(const Header& header) {
  const std::uint64_t value = header.pre_apply.value;
  if (!header.tracks_checksum()) {
    if (value != 0) return broken("pre-apply checksum in a file that tracks none");
    return {};
  }
  if (header.is_snapshot()) {
    if (value != 0) return broken("pre-apply checksum in a snapshot");
    return {};
  }
  if ((value & kChecksumFlag) == 0) return broken("no pre-apply checksum");
  return {};
}

}  // namespace

bool is_page_size(std::uint32_t size) {
  return size >= 512 && size <= 65536 && std::has_single_bit(size);
}

Result<> Header::validate() const {
  if ((flags & ~kNoChecksumFlag) != 0) return broken(fmt::format("unknown flags {:#010x}", flags));
  if (!is_page_size(page_size)) return broken(fmt::format("page size {}", page_size));
  if (min_txid.value == 0) return broken("first transaction is 0");
  if (max_txid < min_txid) return broken("last transaction is before the first");
  OFFPRINT_TRY(validate_wal_position(*this));
  OFFPRINT_TRY(validate_pre_apply(*this));
  // A deletion's post-apply checksum is that of an empty database, which a file without checksums
  // cannot carry.
  if (page_count == 0 && !tracks_checksum())
    return broken("deletion of a database that tracks no checksum");
  return {};
}

void store_header(const Header& header, std::span<std::uint8_t, kHeaderSize> to) {
  std::uint8_t* raw = to.data();
  std::memset(raw, 0, kHeaderSize);
  std::memcpy(raw, kMagic, sizeof kMagic);
  store_be<std::uint32_t>(raw + kFlagsAt, header.flags);
  store_be<std::uint32_t>(raw + kPageSizeAt, header.page_size);
  store_be<std::uint32_t>(raw + kPageCountAt, header.page_count);
  store_be<std::uint64_t>(raw + kMinTxIdAt, header.min_txid.value);
  store_be<std::uint64_t>(raw + kMaxTxIdAt, header.max_txid.value);
  store_be<std::uint64_t>(raw + kTimestampAt, static_cast<std::uint64_t>(header.timestamp_ms));
  store_be<std::uint64_t>(raw + kPreApplyAt, header.pre_apply.value);
  store_be<std::uint64_t>(raw + kWalOffsetAt, static_cast<std::uint64_t>(header.wal_offset));
  store_be<std::uint64_t>(raw + kWalSizeAt, static_cast<std::uint64_t>(header.wal_size));
  store_be<std::uint32_t>(raw + kWalSalt1At, header.wal_salt1);
  store_be<std::uint32_t>(raw + kWalSalt2At, header.wal_salt2);
  store_be<std::uint64_t>(raw + kNodeIdAt, header.node_id);
}

Result<Header> load_header(std::span<const std::uint8_t, kHeaderSize> from) {
  const std::uint8_t* raw = from.data();
  if (std::memcmp(raw, kMagic, sizeof kMagic) != 0) return broken("not an LTX file");
  Header header;
  header.flags = load_be<std::uint32_t>(raw + kFlagsAt);
  header.page_size = load_be<std::uint32_t>(raw + kPageSizeAt);
  header.page_count = load_be<std::uint32_t>(raw + kPageCountAt);
  header.min_txid.value = load_be<std::uint64_t>(raw + kMinTxIdAt);
  header.max_txid.value = load_be<std::uint64_t>(raw + kMaxTxIdAt);
  header.timestamp_ms = static_cast<std::int64_t>(load_be<std::uint64_t>(raw + kTimestampAt));
  header.pre_apply.value = load_be<std::uint64_t>(raw + kPreApplyAt);
  header.wal_offset = static_cast<std::int64_t>(load_be<std::uint64_t>(raw + kWalOffsetAt));
  header.wal_size = static_cast<std::int64_t>(load_be<std::uint64_t>(raw + kWalSizeAt));
  header.wal_salt1 = load_be<std::uint32_t>(raw + kWalSalt1At);
  header.wal_salt2 = load_be<std::uint32_t>(raw + kWalSalt2At);
  header.node_id = load_be<std::uint64_t>(raw + kNodeIdAt);
  OFFPRINT_TRY(header.validate());
  return header;
}

Result<> validate_post_apply(const Header& header, Checksum post_apply) {
  if (!header.tracks_checksum()) {
    if (post_apply.value != 0)
      return fail(Code::kCorrupt, "post-apply checksum in a file that tracks none");
    return {};
  }
  if (header.page_count == 0) {
    if (post_apply != kEmptyDatabase)
      return fail(Code::kCorrupt, "post-apply checksum of a deletion is not the empty one");
    return {};
  }
  if ((post_apply.value & kChecksumFlag) == 0)
    return fail(Code::kCorrupt, "no post-apply checksum");
  return {};
}

PageOrder::PageOrder(const Header& header)
    : page_size_(header.page_size),
      page_count_(header.page_count),
      lock_page_(lock_page(header.page_size)),
      snapshot_(header.is_snapshot()) {}

Result<> PageOrder::take(PageNo page) {
  if (page == 0) return fail(Code::kCorrupt, "page 0");
  if (page > page_count_) {
    return fail(Code::kCorrupt,
                fmt::format("page {} of a database of {} pages", page, page_count_));
  }
  if (page == lock_page_) return fail(Code::kCorrupt, fmt::format("lock page {}", page));
  if (page <= last_) return fail(Code::kCorrupt, fmt::format("page {} after page {}", page, last_));
  if (snapshot_ && page != next_of_snapshot()) {
    return fail(Code::kCorrupt, fmt::format("snapshot leaves out page {}", next_of_snapshot()));
  }
  last_ = page;
  return {};
}

Result<> PageOrder::finish() const {
  if (snapshot_ && next_of_snapshot() <= page_count_) {
    return fail(Code::kCorrupt, fmt::format("snapshot leaves out page {}", next_of_snapshot()));
  }
  return {};
}

std::uint64_t PageOrder::next_of_snapshot() const {
  const std::uint64_t next = std::uint64_t{last_} + 1;
  return next == lock_page_ ? next + 1 : next;
}

std::string file_name(TxId min_txid, TxId max_txid) {
  return fmt::format("{:016x}-{:016x}.ltx", min_txid.value, max_txid.value);
}

std::optional<std::pair<TxId, TxId>> parse_file_name(std::string_view name) {
  if (name.size() != 37 || name[16] != '-' || !name.ends_with(".ltx")) return std::nullopt;
  auto min_txid = parse_hex(name.substr(0, 16), 16);
  auto max_txid = parse_hex(name.substr(17, 16), 16);
  if (!min_txid || !max_txid) return std::nullopt;
  return std::pair(TxId{*min_txid}, TxId{*max_txid});
}

}  // namespace offprint::ltx
