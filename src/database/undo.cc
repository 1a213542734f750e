#include "database/undo.h"

#include "ltx/page_delta.h"

namespace offprint::database {
namespace {

// NOTE: stored; do not change the values.
constexpr std::uint8_t kVersion = 1;
constexpr std::size_t kHeaderSize = 5;  // version, page count
constexpr std::size_t kEntrySize = 8;   // page, size of the delta
constexpr std::uint32_t kGoneFlag = std::uint32_t{1} << 31;

}  // namespace

UndoWriter::UndoWriter(std::uint32_t page_count_before, std::size_t bytes_max)
    : bytes_max_(bytes_max) {
  bytes_.push_back(kVersion);
  append_be<std::uint32_t>(bytes_, page_count_before);
}

void UndoWriter::add(PageNo page, ByteView before, ByteView after) {
  if (bytes_.size() > bytes_max_) return;
  append_be<std::uint32_t>(bytes_, page);
  const std::size_t place = bytes_.size();
  append_be<std::uint32_t>(bytes_, 0);
  ltx::append_page_delta(after, before, bytes_);
  const auto size = static_cast<std::uint32_t>(bytes_.size() - place - 4);
  store_be<std::uint32_t>(bytes_.data() + place, after.empty() ? size | kGoneFlag : size);
}

std::optional<Bytes> UndoWriter::finish() {
  if (bytes_.size() > bytes_max_) return std::nullopt;
  return std::move(bytes_);
}

Result<Undo> read_undo(ByteView bytes) {
  if (bytes.size() < kHeaderSize) return fail(Code::kCorrupt, "an undo is cut off");
  if (bytes[0] > kVersion) return fail(Code::kInvalid, "an undo was written by a newer Offprint");
  Undo undo;
  undo.page_count = load_be<std::uint32_t>(bytes.data() + 1);
  bytes = bytes.subspan(kHeaderSize);
  while (!bytes.empty()) {
    if (bytes.size() < kEntrySize) return fail(Code::kCorrupt, "an undo is cut off");
    const auto page = load_be<std::uint32_t>(bytes.data());
    const auto word = load_be<std::uint32_t>(bytes.data() + 4);
    const std::uint32_t size = word & ~kGoneFlag;
    bytes = bytes.subspan(kEntrySize);
    if (size > bytes.size()) return fail(Code::kCorrupt, "an undo is cut off");
    undo.pages.push_back({page, (word & kGoneFlag) != 0, bytes.first(size)});
    bytes = bytes.subspan(size);
  }
  return undo;
}

}  // namespace offprint::database
