#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/file_system.h"
#include "base/result.h"
#include "ltx/codec.h"
#include "ltx/types.h"

// The node's write-ahead file: append-only records of all its databases, one fdatasync for
// everything that waits. Format, recovery and what is promised when: docs/format/journal.md.
namespace offprint::journal {

// A byte position in the journal, over all its segments; grows for ever.
struct Lsn {
  std::uint64_t value = 0;
  auto operator<=>(const Lsn&) const = default;
};

// NOTE: stored; do not change the values.
enum class Kind : std::uint8_t {
  kTransaction = 1,  // payload: one LTX file (min = max), or newest images of a run (min < max)
  kCreate = 2,
  kDrop = 3,
  kCheckpointed = 4,  // the database file holds, fsynced, everything up to the txid in the metadata
  kTruncate = 5,      // of a replicated group: its log ends at the record's group lsn; as its
                      // first record: it begins after that
  kPromise = 6,       // of a replicated group: no primary of an earlier fencing epoch is followed
  kPart = 7,          // of a replicated group: of the payload of a transaction that comes later
};

// Records of this group are this node's own affair: they are numbered as they come, and committed
// when they are durable. The others are *replicated*: their records have the same number on every
// node, and are committed when all of those that count have them.
inline constexpr std::uint32_t kLocalGroup = 0;

// One piece of a record's metadata. Readers skip types they do not know.
// NOTE: stored; do not change the values.
enum class MetadataType : std::uint16_t {
  kDatabaseState =
      1,  // database/'s: position, size and header of a database (docs/format/journal.md)
  kLargePayload =
      2,  // the payload is in a file of its own: name and size (written by the journal itself)
  kIdempotencyKey = 3,
  kChangeHints = 4,
  kSourcePosition = 5,
  kCheckpointedTxId = 6,  // u64: the database file holds, fsynced, everything up to it
  kFileFingerprint = 7,   // database/'s: the file when it was closed
  kNewHistory = 8,        // u8: the state follows on none before it. 1: the payload is the whole
                          // database; 0: only the pages that differ
  kUndo = 9,              // database/'s: what the pages held before (docs/format/journal.md)
  kPart = 10,             // cluster/'s: which part of which payload this is
  kParts = 11,            // cluster/'s: the parts of the payload, which other nodes make it of
};
struct Metadata {
  MetadataType type;
  Bytes value;
};

// What the caller gives for one record.
struct Draft {
  Kind kind = Kind::kTransaction;
  std::uint64_t database_id = 0;
  std::uint32_t group = kLocalGroup;
  // Of a replicated group: the number that the record has to get, and for kTruncate the number of
  // the last one that stays.
  std::optional<Lsn> group_lsn = {};
  Epoch fencing_epoch;  // for kTruncate: of the last record that stays
  std::vector<Metadata> metadata;
  Bytes payload;  // empty when `large` is given
  // A payload that stands in a file of its own, already fsynced (see LargePayload).
  std::optional<std::string> large_file;
  std::uint64_t large_size = 0;
};

// Where a record is; enough to read its payload again.
struct Location {
  Lsn lsn;                 // of the record's first byte
  std::uint64_t size = 0;  // of the record in the journal, padding included
  std::uint64_t payload_size = 0;
  bool large = false;
};

// A record as read back.
struct Record {
  Location location;
  Kind kind = Kind::kTransaction;
  std::uint64_t database_id = 0;
  std::uint32_t group = 0;
  Lsn group_lsn;         // its number in its group's own log: 1, 2, 3 …; given by append
  Epoch previous_epoch;  // fencing epoch of the record before it in that log
  Epoch fencing_epoch;
  Lsn commit_lsn;   // of the group, as known when this was written
  Lsn durable_lsn;  // of this journal, as known when this was written
  std::vector<Metadata> metadata;
  Bytes payload;  // empty when location.large
};

// A payload too large for memory, written to a file of its own before its record is appended.
class LargePayload : public ltx::ByteSink {
 public:
  // fsyncs the file and its name; then give file() and size() in a Draft. Without this, or when no
  // record follows, the file goes with the object (and at the next start).
  virtual Result<> finish() = 0;
  // What was written is on the disk. Thread: any, beside write(): so that finish() takes less long.
  virtual Result<> sync() = 0;
  virtual const std::string& file() const = 0;
  virtual std::uint64_t size() const = 0;
};

struct Options {
  // Of new segments; 64 KiB … 1 GiB, a multiple of 4096. A record may take half of one.
  std::uint64_t segment_size = 64 << 20;
  // Free segments kept ready: the next one, prepared ahead of need, and freed ones kept for reuse.
  int spare_segments = 1;
  // Prepares the next segment in a thread of its own. Without it, the append that needs one makes
  // it.
  bool background = true;
};

// Where a group's log stands.
struct GroupState {
  Lsn last;        // position of the group's newest record in the group's own log: 1, 2, 3 …
  Lsn commit;      // the newest one known to be committed
  Epoch epoch;     // fencing epoch of the newest record
  Epoch promised;  // of a replicated group: see kPromise
  bool operator==(const GroupState&) const = default;
};

struct Segment {
  Lsn begin;
  Lsn end;  // of the next segment's begin, or of the tail in the last one
};

// Thread: any, unless said otherwise.
// Errors: kFull when no segment can be allocated: the record was not taken, nothing is damaged, and
// it works again when there is space. Any failed write or fsync poisons the journal: from then on
// everything answers kIo, what was waiting has an unknown outcome, and the process must stop and
// recover.
class Journal {
 public:
  // Called for every surviving record, oldest first, during open.
  using Visitor = std::function<Result<>(const Record&)>;

  // Opens or creates the journal in `directory`, finds its tail, makes the surviving tail durable,
  // then visits it. kCorrupt: damage at or below what was durable, with file and offset. kInvalid:
  // written by a newer format.
  static Result<std::unique_ptr<Journal>> open(FileSystem& files, const std::string& directory,
                                               const Options& options, const Visitor& visitor);
  virtual ~Journal() = default;

  // Takes a position for the record. Not durable yet. Records become durable in the order of their
  // positions.
  virtual Result<Location> append(Draft draft) = 0;
  // Waits until the record is durable; whoever comes first writes and syncs for all that wait.
  virtual Result<> wait_durable(const Location& location) = 0;
  Result<Location> commit(Draft draft);  // append and wait

  // Of a replicated group: records up to here are committed. Stands in what is appended from now
  // on.
  virtual void set_commit(std::uint32_t group, Lsn commit) = 0;
  // As of the last append.
  virtual GroupState group(std::uint32_t group) const = 0;

  virtual Result<std::unique_ptr<LargePayload>> create_large_payload() = 0;
  // Reads one that is finished and that no record names yet. kInvalid: there is none.
  virtual Result<std::unique_ptr<ltx::ByteSource>> open_large_payload(const std::string& file) = 0;

  // Reads a record again, checking it. kNotFound when its segment was removed.
  virtual Result<Record> read(const Location& location) = 0;
  // The payload as a stream, wherever it stands.
  virtual Result<std::unique_ptr<ltx::ByteSource>> open_payload(const Location& location) = 0;

  // Oldest first.
  virtual std::vector<Segment> segments() const = 0;
  // Frees segments that end at or before `lsn`, with the large payloads their records name. The
  // last one stays.
  virtual Result<> remove_before(Lsn lsn) = 0;

  // Everything below is durable.
  virtual Lsn durable_lsn() const = 0;
  // Where the next record will be, or the last segment's end when that is full.
  virtual Lsn end_lsn() const = 0;
  virtual std::uint64_t sync_count() const = 0;
  // Of all segments, also prepared and spare ones; without large payloads.
  virtual std::uint64_t disk_bytes() const = 0;
};

}  // namespace offprint::journal
