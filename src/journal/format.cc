#include "journal/format.h"

#include <fmt/format.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/random.h"

namespace offprint::journal {
namespace {

// Offsets in a segment header.
constexpr std::size_t kSegmentVersionAt = 8;
constexpr std::size_t kSegmentCrcAt = 12;
constexpr std::size_t kSegmentIdAt = 16;
constexpr std::size_t kSegmentBeginAt = 32;
constexpr std::size_t kSegmentSizeAt = 40;

// Offsets in a record header. Magic, length, checksum, version and lsn stay where they are in all
// versions.
constexpr std::size_t kLengthAt = 4;
constexpr std::size_t kCrcAt = 8;
constexpr std::size_t kVersionAt = 12;
constexpr std::size_t kKindAt = 13;
constexpr std::size_t kLsnAt = 16;
constexpr std::size_t kGroupLsnAt = 24;
constexpr std::size_t kCommitLsnAt = 32;
constexpr std::size_t kDurableLsnAt = 40;
constexpr std::size_t kDatabaseAt = 48;
constexpr std::size_t kGroupAt = 56;
constexpr std::size_t kPreviousEpochAt = 60;
constexpr std::size_t kFencingEpochAt = 64;
constexpr std::size_t kMetadataSizeAt = 68;
static_assert(kMetadataSizeAt + 4 == kRecordHeaderSize);

std::uint32_t segment_crc(ByteView header) {
  return crc32c(header.subspan(kSegmentCrcAt + 4, kSegmentHeaderSize - kSegmentCrcAt - 4),
                crc32c(header.first(kSegmentCrcAt)));
}

// The body goes first, so that most of the work is done before the record has a position.
std::uint32_t record_crc(ByteView header, std::uint32_t body) {
  return crc32c(header.subspan(kVersionAt, kRecordHeaderSize - kVersionAt),
                crc32c(header.first(kCrcAt), body));
}

}  // namespace

JournalId JournalId::random() {
  JournalId id;
  fill_random(id.bytes);
  return id;
}

std::uint32_t JournalId::crc_seed() const { return crc32c(bytes); }

void encode_segment_header(const SegmentHeader& header, std::uint8_t* to) {
  std::memset(to, 0, kSegmentHeaderSize);
  store_be<std::uint64_t>(to, kSegmentMagic);
  store_be<std::uint32_t>(to + kSegmentVersionAt, kFormatVersion);
  std::memcpy(to + kSegmentIdAt, header.id.bytes.data(), header.id.bytes.size());
  store_be<std::uint64_t>(to + kSegmentBeginAt, header.begin.value);
  store_be<std::uint64_t>(to + kSegmentSizeAt, header.size);
  store_be<std::uint32_t>(to + kSegmentCrcAt, segment_crc({to, kSegmentHeaderSize}));
}

Result<SegmentHeader> parse_segment_header(ByteView bytes) {
  if (bytes.size() < kSegmentHeaderSize)
    return fail(Code::kCorrupt, "the segment header is cut short");
  if (load_be<std::uint64_t>(bytes.data()) != kSegmentMagic)
    return fail(Code::kCorrupt, "not a journal segment");
  if (load_be<std::uint32_t>(bytes.data() + kSegmentCrcAt) != segment_crc(bytes)) {
    return fail(Code::kCorrupt, "the segment header is damaged");
  }
  std::uint32_t version = load_be<std::uint32_t>(bytes.data() + kSegmentVersionAt);
  if (version == 0 || version > kFormatVersion) {
    return fail(Code::kInvalid,
                fmt::format("written by a newer Offprint (journal format {}, this one reads {})",
                            version, kFormatVersion));
  }
  SegmentHeader header;
  std::memcpy(header.id.bytes.data(), bytes.data() + kSegmentIdAt, header.id.bytes.size());
  header.begin.value = load_be<std::uint64_t>(bytes.data() + kSegmentBeginAt);
  header.size = load_be<std::uint64_t>(bytes.data() + kSegmentSizeAt);
  if (header.size < kSegmentSizeMin || header.size > kSegmentSizeMax ||
      header.size % kSegmentHeaderBlock != 0 || header.begin.value % kRecordAlignment != 0 ||
      header.begin.value + header.size < header.begin.value) {
    return fail(Code::kCorrupt, "the segment header makes no sense");
  }
  return header;
}

std::string segment_name(Lsn begin) { return fmt::format("{:016x}.seg", begin.value); }

std::optional<Lsn> parse_segment_name(std::string_view name) {
  if (name.size() != 20 || !name.ends_with(".seg")) return std::nullopt;
  std::optional<std::uint64_t> begin = parse_hex(name.substr(0, 16), 16);
  if (!begin) return std::nullopt;
  return Lsn{*begin};
}

std::uint32_t body_crc(ByteView metadata, ByteView payload, std::uint32_t seed) {
  static constexpr std::uint8_t kZeros[kRecordAlignment] = {};
  std::size_t odd = (kRecordHeaderSize + metadata.size() + payload.size()) % kRecordAlignment;
  std::uint32_t crc = crc32c(payload, crc32c(metadata, seed));
  return odd == 0 ? crc : crc32c({kZeros, kRecordAlignment - odd}, crc);
}

void encode_record_header(const RecordHeader& header, std::uint32_t body, std::uint8_t* to) {
  std::memset(to, 0, kRecordHeaderSize);
  store_be<std::uint32_t>(to, kRecordMagic);
  store_be<std::uint32_t>(to + kLengthAt, header.length);
  to[kVersionAt] = header.version;
  to[kKindAt] = header.kind;
  store_be<std::uint64_t>(to + kLsnAt, header.lsn.value);
  store_be<std::uint64_t>(to + kGroupLsnAt, header.group_lsn.value);
  store_be<std::uint64_t>(to + kCommitLsnAt, header.commit_lsn.value);
  store_be<std::uint64_t>(to + kDurableLsnAt, header.durable_lsn.value);
  store_be<std::uint64_t>(to + kDatabaseAt, header.database_id);
  store_be<std::uint32_t>(to + kGroupAt, header.group);
  store_be<std::uint32_t>(to + kPreviousEpochAt, header.previous_epoch.value);
  store_be<std::uint32_t>(to + kFencingEpochAt, header.fencing_epoch.value);
  store_be<std::uint32_t>(to + kMetadataSizeAt, header.metadata_size);
  store_be<std::uint32_t>(to + kCrcAt, record_crc({to, kRecordHeaderSize}, body));
}

std::optional<RecordHeader> parse_record_header(ByteView bytes, Lsn lsn, std::uint64_t room) {
  if (bytes.size() < kRecordHeaderSize) return std::nullopt;
  const std::uint8_t* from = bytes.data();
  if (load_be<std::uint32_t>(from) != kRecordMagic) return std::nullopt;
  if (load_be<std::uint64_t>(from + kLsnAt) != lsn.value) return std::nullopt;
  RecordHeader header;
  header.length = load_be<std::uint32_t>(from + kLengthAt);
  if (header.length < kRecordHeaderSize || header.padded_size() > room) return std::nullopt;
  header.crc = load_be<std::uint32_t>(from + kCrcAt);
  header.version = from[kVersionAt];
  header.kind = from[kKindAt];
  header.lsn = lsn;
  header.group_lsn.value = load_be<std::uint64_t>(from + kGroupLsnAt);
  header.commit_lsn.value = load_be<std::uint64_t>(from + kCommitLsnAt);
  header.durable_lsn.value = load_be<std::uint64_t>(from + kDurableLsnAt);
  header.database_id = load_be<std::uint64_t>(from + kDatabaseAt);
  header.group = load_be<std::uint32_t>(from + kGroupAt);
  header.previous_epoch.value = load_be<std::uint32_t>(from + kPreviousEpochAt);
  header.fencing_epoch.value = load_be<std::uint32_t>(from + kFencingEpochAt);
  header.metadata_size = load_be<std::uint32_t>(from + kMetadataSizeAt);
  return header;
}

bool claims_lsn(ByteView bytes, Lsn lsn) {
  return load_be<std::uint32_t>(bytes.data()) == kRecordMagic &&
         load_be<std::uint64_t>(bytes.data() + kLsnAt) == lsn.value;
}

bool record_verifies(const RecordHeader& header, ByteView record, std::uint32_t seed) {
  OFFPRINT_ASSERT(record.size() == header.padded_size());
  return record_crc(record.first(kRecordHeaderSize),
                    crc32c(record.subspan(kRecordHeaderSize), seed)) == header.crc;
}

Result<> check_record(const RecordHeader& header) {
  if (header.version == 0 || header.version > kFormatVersion) {
    return fail(
        Code::kInvalid,
        fmt::format("a record written by a newer Offprint (journal format {}, this one reads {})",
                    header.version, kFormatVersion));
  }
  bool known =
      header.is_internal() || (header.kind >= static_cast<std::uint8_t>(Kind::kTransaction) &&
                               header.kind <= static_cast<std::uint8_t>(Kind::kPart));
  if (!known) {
    return fail(Code::kInvalid,
                fmt::format("a record of kind {}, which only a newer Offprint knows", header.kind));
  }
  if (header.metadata_size > header.length - kRecordHeaderSize || header.durable_lsn > header.lsn) {
    return fail(Code::kCorrupt, "a record that contradicts itself");
  }
  return {};
}

void append_metadata(Bytes& to, std::uint16_t type, ByteView value) {
  append_be<std::uint16_t>(to, type);
  append_be<std::uint32_t>(to, static_cast<std::uint32_t>(value.size()));
  append(to, value);
}

Bytes encode_large_reference(const LargeReference& reference) {
  Bytes value;
  append_be<std::uint64_t>(value, reference.size);
  append_be<std::uint32_t>(value, reference.crc);
  append(value, as_bytes(reference.name));
  return value;
}

Result<LargeReference> parse_large_reference(ByteView value) {
  if (value.size() < 12)
    return fail(Code::kCorrupt, "journal record: reference to a large payload cut short");
  LargeReference reference;
  reference.size = load_be<std::uint64_t>(value.data());
  reference.crc = load_be<std::uint32_t>(value.data() + 8);
  reference.name = as_text(value.subspan(12));
  // The name becomes a path: nothing but what create() makes.
  if (reference.name.size() != 32 || !from_hex(reference.name)) {
    return fail(Code::kCorrupt, "journal record: a large payload's name makes no sense");
  }
  return reference;
}

Result<Record> decode_record(const RecordHeader& header, ByteView bytes,
                             std::optional<LargeReference>* large) {
  OFFPRINT_TRY(check_record(header));
  Record record;
  record.kind = static_cast<Kind>(header.kind);
  record.database_id = header.database_id;
  record.group = header.group;
  record.group_lsn = header.group_lsn;
  record.previous_epoch = header.previous_epoch;
  record.fencing_epoch = header.fencing_epoch;
  record.commit_lsn = header.commit_lsn;
  record.durable_lsn = header.durable_lsn;
  record.location = {header.lsn, header.padded_size(),
                     header.length - kRecordHeaderSize - header.metadata_size, false};
  std::optional<LargeReference> reference;
  auto take = [&](std::uint16_t type, ByteView value) -> Result<> {
    if (type == static_cast<std::uint16_t>(MetadataType::kLargePayload)) {
      OFFPRINT_TRY_ASSIGN(reference, parse_large_reference(value));
    } else {
      record.metadata.push_back(
          {static_cast<MetadataType>(type), Bytes(value.begin(), value.end())});
    }
    return {};
  };
  OFFPRINT_TRY(for_each_metadata(bytes.subspan(kRecordHeaderSize, header.metadata_size), take));
  ByteView payload =
      bytes.subspan(kRecordHeaderSize + header.metadata_size, record.location.payload_size);
  record.payload.assign(payload.begin(), payload.end());
  if (reference) {
    record.location.large = true;
    record.location.payload_size = reference->size;
  }
  if (large != nullptr) *large = std::move(reference);
  return record;
}

std::string lsn_text(Lsn lsn) { return fmt::format("{:#x}", lsn.value); }

}  // namespace offprint::journal
