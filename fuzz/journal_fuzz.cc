// Opens a journal whose first segment holds arbitrary bytes. It may refuse them; it must not crash,
// and what it opened must open again with the same records.
//
// The first byte of the input chooses how much is mended before, so that deeper code is reached:
// bit 0 the segment header, bit 1 the records' magic and lsn, bit 2 their checksums.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "base/assert.h"
#include "base/fault_file_system.h"
#include "journal/format.h"
#include "journal/journal.h"

namespace {

using namespace offprint;
using namespace offprint::journal;

constexpr std::uint64_t kSize = kSegmentSizeMin;

void mend_records(Bytes& segment, bool checksums) {
  std::uint32_t seed = JournalId().crc_seed();
  for (std::uint64_t at = kSegmentHeaderBlock; at + kRecordHeaderSize <= kSize;) {
    std::uint8_t* from = segment.data() + at;
    store_be<std::uint32_t>(from, kRecordMagic);
    store_be<std::uint64_t>(from + 16, at);
    // Lengths that have a chance to be right.
    std::uint32_t length = kRecordHeaderSize + load_be<std::uint32_t>(from + 4) % 512;
    store_be<std::uint32_t>(from + 4, length);
    auto header =
        parse_record_header(ByteView(segment).subspan(at, kRecordHeaderSize), Lsn{at}, kSize - at);
    if (!header) return;
    if (checksums) {
      ByteView body = ByteView(segment).subspan(at + kRecordHeaderSize,
                                                header->padded_size() - kRecordHeaderSize);
      encode_record_header(*header, body_crc(body, {}, seed), from);
    }
    at += header->padded_size();
  }
}

struct Seen {
  bool opened = false;
  std::vector<std::pair<std::uint64_t, Bytes>> records;
};

Seen open_once(FaultFileSystem& files) {
  Seen seen;
  Options options;
  options.segment_size = kSize;
  options.background = false;
  auto visit = [&](const Record& record) -> Result<> {
    seen.records.emplace_back(record.location.lsn.value, record.payload);
    return {};
  };
  auto opened = Journal::open(files, "j", options, visit);
  seen.opened = opened.has_value();
  if (!opened) return seen;
  for (const auto& [lsn, payload] : seen.records) {
    auto again = (*opened)->read({Lsn{lsn}, 80, 0, false});
    OFFPRINT_ASSERT(again || again.error().code() == Code::kCorrupt);
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  std::uint8_t mend = data[0];
  Bytes segment(kSize);
  std::size_t used = std::min<std::size_t>(size - 1, kSize);
  // The header block is mostly empty: the input's records follow its first 64 bytes directly.
  std::size_t head = std::min(used, kSegmentHeaderSize);
  std::copy_n(data + 1, head, segment.begin());
  std::size_t rest = std::min<std::size_t>(used - head, kSize - kSegmentHeaderBlock);
  std::copy_n(data + 1 + head, rest,
              segment.begin() + static_cast<std::ptrdiff_t>(kSegmentHeaderBlock));
  if ((mend & 1) != 0) encode_segment_header({JournalId(), Lsn{0}, kSize}, segment.data());
  if ((mend & 2) != 0) mend_records(segment, (mend & 4) != 0);

  FaultFileSystem files;
  files.put("j/" + segment_name(Lsn{0}), segment);
  Seen first = open_once(files);
  files.power_loss(size);
  Seen second = open_once(files);
  OFFPRINT_ASSERT(first.opened == second.opened);
  OFFPRINT_ASSERT(first.records == second.records);
  return 0;
}
