#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/file_system.h"
#include "base/result.h"
#include "ltx/types.h"

// The note beside a replica, FILE-offprint: where FILE stands, exact after a kill at any point.
// Format and reasons: docs/format/replica-position.md.
namespace offprint::replica {

inline constexpr std::size_t kNoteSlotSize = 1024;
inline constexpr std::size_t kNoteFileSize = 2 * kNoteSlotSize;
inline constexpr std::uint32_t kNoteVersion = 1;
inline constexpr std::size_t kSourceMax = 512;
inline constexpr std::size_t kDatabaseHeaderSize = 100;

// One state of FILE.
struct ReplicaPoint {
  Position position;
  std::uint32_t page_count = 0;
  // The schema cookie in FILE is the primary's plus `cookie_offset` (modulo 2^32); `cookie_highest`
  // is the newest one that readers of FILE may have seen.
  std::uint32_t cookie_offset = 0;
  std::uint32_t cookie_highest = 0;
  // The first bytes of page 1 as the primary sent them; SQLite changes some of them in FILE.
  std::array<std::uint8_t, kDatabaseHeaderSize> header{};
  bool operator==(const ReplicaPoint&) const = default;
};

// The page that tells whether an apply was committed.
struct Probe {
  PageNo page = 0;       // 0: none; FILE holds the state after, for no page told them apart
  bool existed = false;  // before the apply
  Checksum before;       // of its images (ltx::page_checksum of the image after mask_probe)
  Checksum after;
  bool operator==(const Probe&) const = default;
};

// One apply: written after BEGIN IMMEDIATE and before the first page.
struct Note {
  std::uint64_t sequence = 0;  // given by PositionFile
  std::uint32_t page_size = 0;
  ReplicaPoint before;
  ReplicaPoint after;
  Probe probe;
  bool clean = false;  // everything up to here is fsynced: true also after another boot
  std::array<std::uint8_t, 16> boot_id{};
  std::string source;  // URL that FILE follows, without secrets; at most kSourceMax bytes
  bool operator==(const Note&) const = default;
};

// A slot's kNoteSlotSize bytes.
Bytes encode_note(const Note& note);
// kCorrupt: not a whole note (torn, empty). kInvalid: of a newer version.
Result<Note> decode_note(ByteView slot);

// The newest note of the file at `path`, without holding it. kNotFound, kCorrupt, kInvalid as
// below.
Result<Note> read_note(FileSystem& files, const std::string& path);

// Sets to zero what may differ in FILE's page 1 although the transaction is the same: journal mode,
// change counters, schema cookie, SQLite's version. Other pages are left alone.
void mask_probe(PageNo page, std::span<std::uint8_t> image);

// This boot of the machine; all zero where the system does not tell (then a note of any boot is
// believed).
std::array<std::uint8_t, 16> current_boot_id();

// The two slots. Thread: one at a time. Holds a lock on the file: one writer of a replica at a
// time.
class PositionFile {
 public:
  // Opens `path`. kNotFound: it does not exist. kBusy: another process holds it. kCorrupt: neither
  // slot is whole. kInvalid: of a newer version.
  static Result<std::unique_ptr<PositionFile>> open(FileSystem& files, const std::string& path);
  // Makes it anew, durably, with `note` in both slots, replacing any other.
  static Result<std::unique_ptr<PositionFile>> create(FileSystem& files, const std::string& path,
                                                      const Note& note);
  virtual ~PositionFile() = default;

  virtual const Note& latest() const = 0;
  // Writes into the slot of the older note; not fsynced. After an error latest() is unchanged.
  virtual Result<> write(Note note) = 0;
  // Writes into both slots, fsyncing each.
  virtual Result<> write_durably(Note note) = 0;
};

}  // namespace offprint::replica
