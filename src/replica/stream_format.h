#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "ltx/types.h"

// The frames of a replication stream, as server and follower share them. Format:
// docs/format/stream.md. Writers append whole frames to a Bytes; FrameReader takes bytes in pieces
// of any size. Nothing here does I/O.
namespace offprint::replica {

inline constexpr std::uint16_t kStreamVersion = 1;
// Request header with the highest version that the client speaks (or ?version=N); absent: 1.
inline constexpr std::string_view kVersionHeader = "Offprint-Stream-Version";
inline constexpr std::string_view kStreamContentType = "application/vnd.offprint.stream";
inline constexpr std::string_view kPageHashesContentType = "application/vnd.offprint.page-hashes";

inline constexpr std::size_t kFrameHeaderSize = 12;
inline constexpr std::size_t kFrameTrailerSize = 4;
// No payload is larger; a reader refuses what claims to be.
inline constexpr std::size_t kPayloadMax = 1 << 20;
// Writers begin a new frame beyond this.
inline constexpr std::size_t kPayloadTarget = 128 << 10;
// How often a server sends a position frame on a stream.
inline constexpr int kHeartbeatMs = 1000;

// NOTE: on the wire; do not change the values.
enum class FrameKind : std::uint8_t {
  kHello = 1,
  kDatabase = 2,
  kStart = 3,
  kPosition = 4,
  kTransaction = 5,
  kSnapshotBegin = 6,
  kPages = 7,
  kSnapshotEnd = 8,
  kResync = 9,
  kEnd = 10,
  kAlive = 11,       // optional; of the whole stream
  kRevocation = 12,  // the same
  kDelta = 13,       // only to who asked for it: transaction_delta.h
  kSource = 14,      // optional; of an instance of a publication
};

// Bits of a frame's flags.
inline constexpr std::uint8_t kFlagMore =
    0x01;  // the transaction goes on in the next frame of this database
inline constexpr std::uint8_t kFlagOptional =
    0x80;  // a reader that does not know the kind may skip the frame

// hello: first on every stream.
struct Hello {
  std::uint16_t version = kStreamVersion;  // of this stream
  std::string server;                      // program and version, for people
};

// position: where the primary stands now; at once after start, then every kHeartbeatMs. start: the
// position that was asked for, with the primary's checksum there.
struct StreamPosition {
  Position position;
  std::int64_t unix_ms = 0;  // the primary's clock
  std::int64_t age_ms = 0;   // of a copy that is followed: since it had all that its primary had
};

// One type-length-value note of a transaction; the types are the journal's (docs/format/journal.md,
// "Metadata").
struct StreamMetadata {
  std::uint16_t type = 0;
  Bytes value;
};

// The beginning of a transaction: in its first frame, before the first bytes of its LTX file.
struct TransactionHead {
  Epoch epoch;
  std::uint64_t ltx_size = 0;  // of the whole file
  std::vector<StreamMetadata> metadata;
};

struct SnapshotBegin {
  Position position;
  std::uint32_t page_size = 0;
  std::uint32_t page_count = 0;  // of the database
  std::uint32_t pages_to_come =
      0;  // in the pages frames that follow (an estimate is allowed: progress only)
  bool difference = false;  // only pages that differ from the hashes sent; else all of them
};

// NOTE: on the wire.
enum class ResyncReason : std::uint8_t { kTooOld = 1, kOtherLineage = 2, kUnknownPosition = 3 };
struct Resync {
  ResyncReason reason = ResyncReason::kTooOld;
  std::string text;
};

// NOTE: on the wire.
enum class EndReason : std::uint8_t { kDropped = 1, kShuttingDown = 2, kError = 3, kDone = 4 };
struct End {
  EndReason reason = EndReason::kDone;
  std::string text;
};

// revocation: a token that counts no more, or all of a database's that are older than a time.
struct StreamRevocation {
  std::string token_id;  // or …
  std::string database;  // … a name or "*"
  // Seconds since 1970: until when the token would have counted, or what its issue must come
  // before.
  std::int64_t time_s = 0;
};

// `database` is the number that a database frame gave; 0 on the stream of a single one.
void append_hello(Bytes& to, const Hello& hello);
void append_database(Bytes& to, std::uint32_t database, std::string_view name);
void append_start(Bytes& to, std::uint32_t database, const StreamPosition& position);
void append_position(Bytes& to, std::uint32_t database, const StreamPosition& position);
void append_snapshot_begin(Bytes& to, std::uint32_t database, const SnapshotBegin& begin);
void append_snapshot_end(Bytes& to, std::uint32_t database);
void append_resync(Bytes& to, std::uint32_t database, const Resync& resync);
void append_end(Bytes& to, std::uint32_t database, const End& end);
// A sign of life of a stream that has no databases (now).
void append_alive(Bytes& to, std::int64_t unix_ms);
void append_revocation(Bytes& to, const StreamRevocation& revocation);
// The transaction or position that comes next in this database is of this state of its source.
void append_source(Bytes& to, std::uint32_t database, const Bookmark& source);

// A whole transaction at hand, as frames of at most about kPayloadTarget.
void append_transaction(Bytes& to, std::uint32_t database, const TransactionHead& head,
                        ByteView ltx);
// The same piece by piece, for files that are not to be in memory: first, then as many parts as
// needed; `more` is false in the last of them. A part is at most kPayloadTarget; head.metadata at
// most kPayloadTarget in all.
void append_transaction_first(Bytes& to, std::uint32_t database, const TransactionHead& head,
                              ByteView part, bool more);
void append_transaction_part(Bytes& to, std::uint32_t database, ByteView part, bool more);

// A transaction as encode_delta() made it.
void append_delta(Bytes& to, std::uint32_t database, ByteView delta);

// Gathers pages of a snapshot into frames. add() and flush() append to `to` when a frame is full
// (or at its end).
class PagesWriter {
 public:
  explicit PagesWriter(std::uint32_t database) : database_(database) {}
  void add(Bytes& to, PageNo page, ByteView image);
  void flush(Bytes& to);

 private:
  std::uint32_t database_;
  Bytes payload_;
};

// A frame as read. `payload` points into the reader, or what it was parsed from.
struct Frame {
  FrameKind kind = FrameKind::kHello;
  std::uint8_t flags = 0;
  std::uint32_t database = 0;
  ByteView payload;
  bool more() const { return (flags & kFlagMore) != 0; }
};

// Bytes in, whole and checked frames out. Memory: what was fed and not yet taken, plus one frame.
// Errors: kCorrupt: not what a writer makes, or damaged; kInvalid: made by a newer version that
// this one cannot follow. After an error it answers the same error for ever.
class FrameReader {
 public:
  void feed(ByteView bytes);
  // The next frame, valid until the next call of feed or next; nothing: more bytes are needed.
  // Optional frames of unknown kind are skipped.
  Result<std::optional<Frame>> next();
  // Bytes fed that belong to no whole frame yet: 0 at an orderly end.
  std::size_t pending() const { return buffer_.size() - taken_; }

 private:
  Result<std::optional<Frame>> read();

  Bytes buffer_;
  std::size_t taken_ = 0;
  std::optional<Error> failed_;
};

// Payloads of frames. kCorrupt when too short or out of range; bytes after the known fields are
// ignored (a newer writer's). Texts and byte views are copied or point into the payload, as their
// types say.
Result<Hello> parse_hello(ByteView payload);
Result<std::string> parse_database(ByteView payload);
Result<StreamPosition> parse_position(ByteView payload);  // of start and position
Result<SnapshotBegin> parse_snapshot_begin(ByteView payload);
Result<Resync> parse_resync(ByteView payload);
Result<End> parse_end(ByteView payload);
Result<StreamRevocation> parse_revocation(ByteView payload);
Result<Bookmark> parse_source(ByteView payload);

struct TransactionFirst {
  TransactionHead head;
  ByteView part;  // the first bytes of the LTX file
};
Result<TransactionFirst> parse_transaction_first(ByteView payload);

// Goes through a pages frame: next() decompresses one page at a time, nothing at the end.
class PagesReader {
 public:
  // kCorrupt for pages of another size.
  PagesReader(ByteView payload, std::uint32_t page_size) : rest_(payload), image_(page_size) {}
  struct Page {
    PageNo number = 0;
    ByteView image;  // valid until the next call
  };
  Result<std::optional<Page>> next();

 private:
  ByteView rest_;
  Bytes image_;
};

// Body of POST …/pages: what the copy has. hashes[i] is the LTX page checksum of page i+1 as the
// primary would have sent it (page 1 with the header that came with it), 0 for the lock page. No
// hashes: everything is wanted.
struct PageHashes {
  std::uint32_t page_size = 0;  // 0 when there are none
  std::vector<std::uint64_t> hashes;
};
Bytes encode_page_hashes(const PageHashes& hashes);
// kInvalid: a newer version. kCorrupt: not such a body.
Result<PageHashes> parse_page_hashes(ByteView body);

}  // namespace offprint::replica
