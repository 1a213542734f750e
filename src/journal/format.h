#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "journal/journal.h"

// The bytes of segments and records, shared by the writer and every reader. Tables:
// docs/format/journal.md. All integers are big-endian.
namespace offprint::journal {

// NOTE: stored; do not change the values.
inline constexpr std::uint8_t kFormatVersion = 1;
inline constexpr std::uint64_t kSegmentMagic = 0x4f46505f4a524e4c;  // "OFP_JRNL"
inline constexpr std::uint32_t kRecordMagic = 0x4f504a52;           // "OPJR"
inline constexpr std::uint8_t kFillerKind = 254;  // the rest of the segment is unused
inline constexpr std::uint8_t kMarkKind =
    255;  // the journal's own: state of the groups, a fresh durable lsn
inline constexpr std::uint16_t kGroupStatesType = 0xff00;    // metadata of a mark
inline constexpr std::uint16_t kGroupPromisesType = 0xff01;  // the same

// The header's block is never written again while the segment holds records, so a torn write cannot
// hurt it.
inline constexpr std::uint64_t kSegmentHeaderBlock = 4096;
inline constexpr std::size_t kSegmentHeaderSize = 64;
inline constexpr std::size_t kRecordHeaderSize = 72;
inline constexpr std::uint64_t kRecordAlignment = 8;
inline constexpr std::size_t kMetadataHeaderSize = 6;
inline constexpr std::size_t kGroupStateSize = 24;
inline constexpr std::size_t kGroupPromiseSize = 8;

inline constexpr std::uint64_t kSegmentSizeMin = 64 << 10;
inline constexpr std::uint64_t kSegmentSizeMax = 1 << 30;
inline constexpr std::size_t kGroupCountMax = 256;
// A segment's header, its first mark and one record of half a segment always fit.
static_assert(kSegmentHeaderBlock + kRecordHeaderSize + 2 * kMetadataHeaderSize +
                  kGroupCountMax * (kGroupStateSize + kGroupPromiseSize) + kSegmentSizeMin / 2 <=
              kSegmentSizeMin);

// Random identity of a journal: records of another one never verify.
struct JournalId {
  std::array<std::uint8_t, 16> bytes{};
  bool operator==(const JournalId&) const = default;
  static JournalId random();
  // Start value of every record's checksum: without the id nobody can craft bytes that pass for a
  // record.
  std::uint32_t crc_seed() const;
};

struct SegmentHeader {
  JournalId id;
  Lsn begin;
  std::uint64_t size = 0;  // of the file, header block included
};
// `to` holds kSegmentHeaderSize bytes.
void encode_segment_header(const SegmentHeader& header, std::uint8_t* to);
// kCorrupt: not a segment header, or damaged. kInvalid: of a newer format.
Result<SegmentHeader> parse_segment_header(ByteView bytes);
// "%016x.seg"
std::string segment_name(Lsn begin);
std::optional<Lsn> parse_segment_name(std::string_view name);

struct RecordHeader {
  std::uint32_t length = 0;  // header, metadata and payload; without padding
  std::uint32_t crc = 0;
  std::uint8_t version = kFormatVersion;
  std::uint8_t kind = 0;
  Lsn lsn;
  Lsn group_lsn;
  Lsn commit_lsn;
  Lsn durable_lsn;
  std::uint64_t database_id = 0;
  std::uint32_t group = 0;
  Epoch previous_epoch;
  Epoch fencing_epoch;
  std::uint32_t metadata_size = 0;

  std::uint64_t padded_size() const {
    return (std::uint64_t{length} + kRecordAlignment - 1) & ~(kRecordAlignment - 1);
  }
  // Written by the journal itself and visited by nobody.
  bool is_internal() const { return kind == kFillerKind || kind == kMarkKind; }
};

// Checksum of what follows a record's header: metadata, payload, padding.
std::uint32_t body_crc(ByteView metadata, ByteView payload, std::uint32_t seed);
// Fills `to` (kRecordHeaderSize bytes), the checksum included. `body` is body_crc's answer.
void encode_record_header(const RecordHeader& header, std::uint32_t body, std::uint8_t* to);
// Is there a header at `lsn` that could begin a record of at most `room` bytes? The checksum is not
// looked at.
std::optional<RecordHeader> parse_record_header(ByteView bytes, Lsn lsn, std::uint64_t room);
// Does a header begin here that says it stands at `lsn`, whatever else it says? `bytes` hold
// kRecordHeaderSize at least.
bool claims_lsn(ByteView bytes, Lsn lsn);
// `record` has padded_size() bytes.
bool record_verifies(const RecordHeader& header, ByteView record, std::uint32_t seed);
// After record_verifies. kInvalid: a version or kind of a newer format. kCorrupt: verified, but
// makes no sense.
Result<> check_record(const RecordHeader& header);

void append_metadata(Bytes& to, std::uint16_t type, ByteView value);
// Calls `take(type, value)` for each piece. kCorrupt when the pieces do not fill `bytes` exactly.
template <class Take>
Result<> for_each_metadata(ByteView bytes, Take take) {
  while (!bytes.empty()) {
    if (bytes.size() < kMetadataHeaderSize)
      return fail(Code::kCorrupt, "journal record: metadata cut short");
    std::uint16_t type = load_be<std::uint16_t>(bytes.data());
    std::uint32_t size = load_be<std::uint32_t>(bytes.data() + 2);
    bytes = bytes.subspan(kMetadataHeaderSize);
    if (size > bytes.size()) return fail(Code::kCorrupt, "journal record: metadata cut short");
    OFFPRINT_TRY(take(type, bytes.first(size)));
    bytes = bytes.subspan(size);
  }
  return {};
}

// Value of MetadataType::kLargePayload.
struct LargeReference {
  std::uint64_t size = 0;
  std::uint32_t crc = 0;
  std::string name;
};
Bytes encode_large_reference(const LargeReference& reference);
Result<LargeReference> parse_large_reference(ByteView value);

// A verified record of `bytes` (padded_size() of them), payload and metadata copied.
Result<Record> decode_record(const RecordHeader& header, ByteView bytes,
                             std::optional<LargeReference>* large);

std::string lsn_text(Lsn lsn);  // "0x%x"

}  // namespace offprint::journal
