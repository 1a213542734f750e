#include "journal/segment_reader.h"

#include <algorithm>

#include "base/assert.h"

namespace offprint::journal {
namespace {
constexpr std::uint64_t kWindow = 1 << 20;
}

Result<ByteView> SegmentReader::view(Lsn lsn, std::uint64_t size) {
  OFFPRINT_ASSERT(segment_.begin <= lsn && lsn.value + size <= segment_.end().value);
  std::uint64_t offset = lsn.value - segment_.begin.value;
  bool inside = offset >= window_at_ && offset + size <= window_at_ + window_.size();
  if (!inside) {
    std::uint64_t wanted = std::min(std::max(size, kWindow), segment_.size - offset);
    window_.resize(wanted);
    window_at_ = offset;
    OFFPRINT_TRY_ASSIGN(std::size_t got, segment_.file->read_at(offset, window_));
    window_.resize(got);
  }
  std::uint64_t start = offset - window_at_;
  return ByteView(window_).subspan(start, std::min<std::uint64_t>(size, window_.size() - start));
}

Result<std::optional<SegmentReader::Found>> SegmentReader::record(Lsn lsn, std::uint32_t seed) {
  std::uint64_t room = segment_.end().value - lsn.value;
  if (room < kRecordHeaderSize) return std::nullopt;
  OFFPRINT_TRY_ASSIGN(ByteView head, view(lsn, kRecordHeaderSize));
  std::optional<RecordHeader> header = parse_record_header(head, lsn, room);
  if (!header) return std::nullopt;
  OFFPRINT_TRY_ASSIGN(ByteView whole, view(lsn, header->padded_size()));
  if (whole.size() != header->padded_size() || !record_verifies(*header, whole, seed))
    return std::nullopt;
  return Found{*header, whole};
}

}  // namespace offprint::journal
