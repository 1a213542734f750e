#include "replica/stream_format.h"

#include <algorithm>

#include <fmt/format.h>
#include <lz4.h>

#include "base/assert.h"
#include "base/crc32c.h"

namespace offprint::replica {
namespace {

constexpr std::uint8_t kKnownFlags = kFlagMore | kFlagOptional;
constexpr std::size_t kPositionSize = 16 + 4 + 8 + 8;
constexpr std::size_t kPageHeadSize = 8;
constexpr std::size_t kMetadataHeadSize = 6;
constexpr std::uint32_t kPageHashesMagic = 0x4f505048;  // "OPPH"
constexpr std::size_t kPageHashesHeadSize = 16;
// A text in a frame; longer ones are cut.
constexpr std::size_t kTextMax = 4096;

// Appends one frame; `fill` appends its payload.
template <class Fill>
void append_frame(Bytes& to, FrameKind kind, std::uint8_t flags, std::uint32_t database,
                  const Fill& fill) {
  std::size_t begin = to.size();
  append_be<std::uint32_t>(to, 0);
  to.push_back(static_cast<std::uint8_t>(kind));
  to.push_back(flags);
  append_be<std::uint16_t>(to, 0);
  append_be<std::uint32_t>(to, database);
  fill();
  std::size_t size = to.size() - begin - kFrameHeaderSize;
  OFFPRINT_ASSERT(size <= kPayloadMax);
  store_be<std::uint32_t>(to.data() + begin, static_cast<std::uint32_t>(size));
  append_be<std::uint32_t>(to, crc32c(ByteView(to).subspan(begin)));
}

void append_position_fields(Bytes& to, const Position& position) {
  append(to, position.lineage.bytes);
  append_be<std::uint32_t>(to, position.epoch.value);
  append_be<std::uint64_t>(to, position.txid.value);
  append_be<std::uint64_t>(to, position.checksum.value);
}

Position parse_position_fields(const std::uint8_t* from) {
  Position position;
  std::copy_n(from, position.lineage.bytes.size(), position.lineage.bytes.begin());
  position.epoch.value = load_be<std::uint32_t>(from + 16);
  position.txid.value = load_be<std::uint64_t>(from + 20);
  position.checksum.value = load_be<std::uint64_t>(from + 28);
  return position;
}

void append_stream_position(Bytes& to, FrameKind kind, std::uint32_t database,
                            const StreamPosition& position) {
  append_frame(to, kind, 0, database, [&] {
    append_position_fields(to, position.position);
    append_be<std::uint64_t>(to, static_cast<std::uint64_t>(position.unix_ms));
    append_be<std::uint64_t>(to, static_cast<std::uint64_t>(position.age_ms));
  });
}

void append_text(Bytes& to, std::string_view text) {
  text = text.substr(0, kTextMax);
  append_be<std::uint16_t>(to, static_cast<std::uint16_t>(text.size()));
  append(to, as_bytes(text));
}

void append_reason(Bytes& to, FrameKind kind, std::uint32_t database, std::uint8_t reason,
                   std::string_view text) {
  append_frame(to, kind, 0, database, [&] {
    to.push_back(reason);
    append(to, as_bytes(text.substr(0, kTextMax)));
  });
}

Result<> need(ByteView payload, std::size_t size, const char* what) {
  if (payload.size() >= size) return {};
  return fail(Code::kCorrupt,
              fmt::format("{} frame of {} bytes, {} are needed", what, payload.size(), size));
}

// Takes a text from the front of `rest`.
Result<std::string> take_text(ByteView& rest, const char* what) {
  OFFPRINT_TRY(need(rest, 2, what));
  std::size_t size = load_be<std::uint16_t>(rest.data());
  OFFPRINT_TRY(need(rest, 2 + size, what));
  std::string text(as_text(rest.subspan(2, size)));
  rest = rest.subspan(2 + size);
  return text;
}

bool is_known(std::uint8_t kind) {
  return kind >= static_cast<std::uint8_t>(FrameKind::kHello) &&
         kind <= static_cast<std::uint8_t>(FrameKind::kSource);
}

bool is_page_size(std::uint32_t size) {
  return size >= 512 && size <= 65536 && (size & (size - 1)) == 0;
}

}  // namespace

void append_hello(Bytes& to, const Hello& hello) {
  append_frame(to, FrameKind::kHello, 0, 0, [&] {
    append_be<std::uint16_t>(to, hello.version);
    append_text(to, hello.server);
  });
}

void append_database(Bytes& to, std::uint32_t database, std::string_view name) {
  append_frame(to, FrameKind::kDatabase, 0, database, [&] { append_text(to, name); });
}

void append_start(Bytes& to, std::uint32_t database, const StreamPosition& position) {
  append_stream_position(to, FrameKind::kStart, database, position);
}

void append_position(Bytes& to, std::uint32_t database, const StreamPosition& position) {
  append_stream_position(to, FrameKind::kPosition, database, position);
}

void append_snapshot_begin(Bytes& to, std::uint32_t database, const SnapshotBegin& begin) {
  append_frame(to, FrameKind::kSnapshotBegin, 0, database, [&] {
    append_position_fields(to, begin.position);
    append_be<std::uint32_t>(to, begin.page_size);
    append_be<std::uint32_t>(to, begin.page_count);
    append_be<std::uint32_t>(to, begin.pages_to_come);
    to.push_back(begin.difference ? 1 : 0);
  });
}

void append_snapshot_end(Bytes& to, std::uint32_t database) {
  append_frame(to, FrameKind::kSnapshotEnd, 0, database, [] {});
}

void append_resync(Bytes& to, std::uint32_t database, const Resync& resync) {
  append_reason(to, FrameKind::kResync, database, static_cast<std::uint8_t>(resync.reason),
                resync.text);
}

void append_end(Bytes& to, std::uint32_t database, const End& end) {
  append_reason(to, FrameKind::kEnd, database, static_cast<std::uint8_t>(end.reason), end.text);
}

void append_alive(Bytes& to, std::int64_t unix_ms) {
  append_frame(to, FrameKind::kAlive, kFlagOptional, 0,
               [&] { append_be<std::uint64_t>(to, static_cast<std::uint64_t>(unix_ms)); });
}

void append_revocation(Bytes& to, const StreamRevocation& revocation) {
  append_frame(to, FrameKind::kRevocation, kFlagOptional, 0, [&] {
    append_be<std::uint64_t>(to, static_cast<std::uint64_t>(revocation.time_s));
    append_text(to, revocation.token_id);
    append_text(to, revocation.database);
  });
}

void append_source(Bytes& to, std::uint32_t database, const Bookmark& source) {
  append_frame(to, FrameKind::kSource, kFlagOptional, database, [&] {
    append(to, source.lineage.bytes);
    append_be<std::uint32_t>(to, source.epoch.value);
    append_be<std::uint64_t>(to, source.txid.value);
  });
}

Result<Bookmark> parse_source(ByteView payload) {
  constexpr std::size_t kSize = 28;
  if (payload.size() < kSize) return fail(Code::kCorrupt, "a source frame is too short");
  Bookmark source;
  std::copy_n(payload.begin(), source.lineage.bytes.size(), source.lineage.bytes.begin());
  source.epoch = Epoch{load_be<std::uint32_t>(payload.data() + 16)};
  source.txid = TxId{load_be<std::uint64_t>(payload.data() + 20)};
  return source;
}

void append_transaction_first(Bytes& to, std::uint32_t database, const TransactionHead& head,
                              ByteView part, bool more) {
  append_frame(to, FrameKind::kTransaction, more ? kFlagMore : 0, database, [&] {
    append_be<std::uint32_t>(to, head.epoch.value);
    append_be<std::uint64_t>(to, head.ltx_size);
    std::size_t size_at = to.size();
    append_be<std::uint32_t>(to, 0);
    for (const StreamMetadata& note : head.metadata) {
      append_be<std::uint16_t>(to, note.type);
      append_be<std::uint32_t>(to, static_cast<std::uint32_t>(note.value.size()));
      append(to, note.value);
    }
    store_be<std::uint32_t>(to.data() + size_at,
                            static_cast<std::uint32_t>(to.size() - size_at - 4));
    append(to, part);
  });
}

void append_transaction_part(Bytes& to, std::uint32_t database, ByteView part, bool more) {
  append_frame(to, FrameKind::kTransaction, more ? kFlagMore : 0, database,
               [&] { append(to, part); });
}

void append_transaction(Bytes& to, std::uint32_t database, const TransactionHead& head,
                        ByteView ltx) {
  std::size_t size = std::min(ltx.size(), kPayloadTarget);
  append_transaction_first(to, database, head, ltx.first(size), size < ltx.size());
  for (ltx = ltx.subspan(size); !ltx.empty(); ltx = ltx.subspan(size)) {
    size = std::min(ltx.size(), kPayloadTarget);
    append_transaction_part(to, database, ltx.first(size), size < ltx.size());
  }
}

void append_delta(Bytes& to, std::uint32_t database, ByteView delta) {
  append_frame(to, FrameKind::kDelta, 0, database, [&] { append(to, delta); });
}

void PagesWriter::add(Bytes& to, PageNo page, ByteView image) {
  OFFPRINT_ASSERT(is_page_size(static_cast<std::uint32_t>(image.size())));
  int bound = LZ4_compressBound(static_cast<int>(image.size()));
  append_be<std::uint32_t>(payload_, page);
  std::size_t size_at = payload_.size();
  append_be<std::uint32_t>(payload_, 0);
  std::size_t block_at = payload_.size();
  payload_.resize(block_at + static_cast<std::size_t>(bound));
  int size = LZ4_compress_default(reinterpret_cast<const char*>(image.data()),
                                  reinterpret_cast<char*>(payload_.data() + block_at),
                                  static_cast<int>(image.size()), bound);
  OFFPRINT_ASSERT(size > 0);
  payload_.resize(block_at + static_cast<std::size_t>(size));
  store_be<std::uint32_t>(payload_.data() + size_at, static_cast<std::uint32_t>(size));
  if (payload_.size() >= kPayloadTarget) flush(to);
}

void PagesWriter::flush(Bytes& to) {
  if (payload_.empty()) return;
  append_frame(to, FrameKind::kPages, 0, database_, [&] { append(to, payload_); });
  payload_.clear();
}

void FrameReader::feed(ByteView bytes) {
  buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(taken_));
  taken_ = 0;
  append(buffer_, bytes);
}

Result<std::optional<Frame>> FrameReader::next() {
  if (failed_) return fail(*failed_);
  Result<std::optional<Frame>> frame = read();
  if (!frame) failed_ = frame.error();
  return frame;
}

Result<std::optional<Frame>> FrameReader::read() {
  for (;;) {
    ByteView rest = ByteView(buffer_).subspan(taken_);
    if (rest.size() < kFrameHeaderSize) return std::nullopt;
    std::size_t size = load_be<std::uint32_t>(rest.data());
    if (size > kPayloadMax) {
      return fail(Code::kCorrupt,
                  fmt::format("frame of {} bytes, at most {} are allowed", size, kPayloadMax));
    }
    std::size_t whole = kFrameHeaderSize + size + kFrameTrailerSize;
    if (rest.size() < whole) return std::nullopt;
    std::uint32_t sum = load_be<std::uint32_t>(rest.data() + whole - kFrameTrailerSize);
    if (crc32c(rest.first(whole - kFrameTrailerSize)) != sum)
      return fail(Code::kCorrupt, "frame with a wrong checksum");
    taken_ += whole;
    std::uint8_t kind = rest[4];
    std::uint8_t flags = rest[5];
    if (!is_known(kind) && (flags & kFlagOptional) != 0) continue;
    if (!is_known(kind) || (flags & ~kKnownFlags) != 0 ||
        load_be<std::uint16_t>(rest.data() + 6) != 0) {
      return fail(Code::kInvalid,
                  fmt::format("the stream is of a newer version: frame kind {} with flags {:#04x}",
                              kind, flags));
    }
    return Frame{static_cast<FrameKind>(kind), flags, load_be<std::uint32_t>(rest.data() + 8),
                 rest.subspan(kFrameHeaderSize, size)};
  }
}

Result<Hello> parse_hello(ByteView payload) {
  OFFPRINT_TRY(need(payload, 4, "hello"));
  Hello hello;
  hello.version = load_be<std::uint16_t>(payload.data());
  ByteView rest = payload.subspan(2);
  OFFPRINT_TRY_ASSIGN(hello.server, take_text(rest, "hello"));
  if (hello.version == 0 || hello.version > kStreamVersion) {
    return fail(Code::kInvalid,
                fmt::format("the server speaks stream version {}, this program up to {}",
                            hello.version, kStreamVersion));
  }
  return hello;
}

Result<std::string> parse_database(ByteView payload) { return take_text(payload, "database"); }

Result<StreamRevocation> parse_revocation(ByteView payload) {
  OFFPRINT_TRY(need(payload, 8, "revocation"));
  StreamRevocation revocation;
  revocation.time_s = static_cast<std::int64_t>(load_be<std::uint64_t>(payload.data()));
  ByteView rest = payload.subspan(8);
  OFFPRINT_TRY_ASSIGN(revocation.token_id, take_text(rest, "revocation"));
  OFFPRINT_TRY_ASSIGN(revocation.database, take_text(rest, "revocation"));
  return revocation;
}

Result<StreamPosition> parse_position(ByteView payload) {
  OFFPRINT_TRY(need(payload, kPositionSize + 8, "position"));
  const std::uint8_t* from = payload.data() + kPositionSize;
  StreamPosition position{parse_position_fields(payload.data()),
                          static_cast<std::int64_t>(load_be<std::uint64_t>(from)), 0};
  if (payload.size() >= kPositionSize + 16)  // else of an older server
    position.age_ms = static_cast<std::int64_t>(load_be<std::uint64_t>(from + 8));
  return position;
}

Result<SnapshotBegin> parse_snapshot_begin(ByteView payload) {
  OFFPRINT_TRY(need(payload, kPositionSize + 13, "snapshot_begin"));
  const std::uint8_t* from = payload.data() + kPositionSize;
  SnapshotBegin begin{parse_position_fields(payload.data()), load_be<std::uint32_t>(from),
                      load_be<std::uint32_t>(from + 4), load_be<std::uint32_t>(from + 8),
                      from[12] != 0};
  if (!is_page_size(begin.page_size)) {
    return fail(Code::kCorrupt, fmt::format("snapshot with pages of {} bytes", begin.page_size));
  }
  return begin;
}

Result<Resync> parse_resync(ByteView payload) {
  OFFPRINT_TRY(need(payload, 1, "resync"));
  return Resync{static_cast<ResyncReason>(payload[0]), std::string(as_text(payload.subspan(1)))};
}

Result<End> parse_end(ByteView payload) {
  OFFPRINT_TRY(need(payload, 1, "end"));
  bool known = payload[0] >= 1 && payload[0] <= static_cast<std::uint8_t>(EndReason::kDone);
  return End{known ? static_cast<EndReason>(payload[0]) : EndReason::kError,
             std::string(as_text(payload.subspan(1)))};
}

Result<TransactionFirst> parse_transaction_first(ByteView payload) {
  OFFPRINT_TRY(need(payload, 16, "transaction"));
  TransactionFirst first;
  first.head.epoch.value = load_be<std::uint32_t>(payload.data());
  first.head.ltx_size = load_be<std::uint64_t>(payload.data() + 4);
  std::size_t size = load_be<std::uint32_t>(payload.data() + 12);
  OFFPRINT_TRY(need(payload, 16 + size, "transaction"));
  first.part = payload.subspan(16 + size);
  for (ByteView notes = payload.subspan(16, size); !notes.empty();) {
    OFFPRINT_TRY(need(notes, kMetadataHeadSize, "transaction's metadata in a"));
    std::size_t length = load_be<std::uint32_t>(notes.data() + 2);
    OFFPRINT_TRY(need(notes, kMetadataHeadSize + length, "transaction's metadata in a"));
    ByteView value = notes.subspan(kMetadataHeadSize, length);
    first.head.metadata.push_back(
        {load_be<std::uint16_t>(notes.data()), Bytes(value.begin(), value.end())});
    notes = notes.subspan(kMetadataHeadSize + length);
  }
  return first;
}

Result<std::optional<PagesReader::Page>> PagesReader::next() {
  if (rest_.empty()) return std::nullopt;
  OFFPRINT_TRY(need(rest_, kPageHeadSize, "pages"));
  PageNo page = load_be<std::uint32_t>(rest_.data());
  std::size_t size = load_be<std::uint32_t>(rest_.data() + 4);
  OFFPRINT_TRY(need(rest_, kPageHeadSize + size, "pages"));
  int image_size = static_cast<int>(image_.size());
  int got = LZ4_decompress_safe(reinterpret_cast<const char*>(rest_.data() + kPageHeadSize),
                                reinterpret_cast<char*>(image_.data()), static_cast<int>(size),
                                image_size);
  if (page == 0 || got != image_size) {
    return fail(Code::kCorrupt, fmt::format("page {} of a snapshot does not inflate to {} bytes",
                                            page, image_size));
  }
  rest_ = rest_.subspan(kPageHeadSize + size);
  return Page{page, image_};
}

Bytes encode_page_hashes(const PageHashes& hashes) {
  Bytes body;
  body.reserve(kPageHashesHeadSize + hashes.hashes.size() * 8);
  append_be<std::uint32_t>(body, kPageHashesMagic);
  append_be<std::uint32_t>(body, kStreamVersion);
  append_be<std::uint32_t>(body, hashes.page_size);
  append_be<std::uint32_t>(body, static_cast<std::uint32_t>(hashes.hashes.size()));
  for (std::uint64_t hash : hashes.hashes) append_be<std::uint64_t>(body, hash);
  return body;
}

Result<PageHashes> parse_page_hashes(ByteView body) {
  if (body.size() < kPageHashesHeadSize ||
      load_be<std::uint32_t>(body.data()) != kPageHashesMagic) {
    return fail(Code::kCorrupt, "the body is no list of page hashes");
  }
  std::uint32_t version = load_be<std::uint32_t>(body.data() + 4);
  if (version != kStreamVersion) {
    return fail(Code::kInvalid, fmt::format("page hashes of version {}, this program reads {}",
                                            version, kStreamVersion));
  }
  PageHashes result;
  result.page_size = load_be<std::uint32_t>(body.data() + 8);
  std::uint64_t count = load_be<std::uint32_t>(body.data() + 12);
  bool size_valid = is_page_size(result.page_size) || (count == 0 && result.page_size == 0);
  if (!size_valid || body.size() != kPageHashesHeadSize + count * 8) {
    return fail(Code::kCorrupt,
                fmt::format("a list of {} page hashes of {}-byte pages does not have {} bytes",
                            count, result.page_size, body.size()));
  }
  result.hashes.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    result.hashes.push_back(load_be<std::uint64_t>(body.data() + kPageHashesHeadSize + i * 8));
  }
  return result;
}

}  // namespace offprint::replica
