#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>

#include "archive/object_store.h"
#include "base/file_system.h"
#include "base/result.h"
#include "database/request.h"
#include "ltx/types.h"

namespace offprint::archive {

// Which moment of a database is wanted.
struct Newest {};
using database::AtTime;  // the last transaction that is not later
using RestoreTarget = std::variant<Newest, TxId, Bookmark, AtTime>;

struct RestoreOptions {
  // Replace a file that is there; no program may have it open.
  bool replace = false;
  // What page 1 says of the journal mode.
  enum class JournalMode { kAsArchived, kWal, kRollback };
  JournalMode journal_mode = JournalMode::kAsArchived;
  // Pages written, and how many it will be. Called on the caller's thread.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress = {};
  // When it becomes true the restore ends soon with kUnavailable, and the store is cancelled.
  const std::atomic<bool>* cancelled = nullptr;
  FileSystem* files = &FileSystem::real();
};

struct Restored {
  TxId txid;
  Checksum checksum;    // of the database, computed from its pages as they are archived
  bool proven = false;  // the archive has that checksum too
  std::int64_t timestamp_ms = 0;
  std::uint32_t page_size = 0;
  std::uint32_t page_count = 0;
  std::optional<Bookmark> bookmark;  // in archives of Offprint
  std::size_t files = 0;             // of the archive, that it was made from
  std::uint64_t bytes = 0;           // their size
};

// Makes an SQLite file from a database's archive, which is below `prefix` ("orders/", or "" for the
// store's own place). The file appears when it is whole, durable and proven: every checksum that
// the archive has of it was computed again. Reads many objects at once, at most kMergeFilesMax;
// memory: about 1.5 MiB for each, and 8 bytes for each page in them. Where more are needed, some
// are merged first, into files beside the output. Blocks. Thread: any. Errors: kNotFound no such
// archive or moment; kConflict the file is there; kCorrupt objects are missing or damaged, with
// their names; kUnavailable cancelled; and what the store and the file system answer.
Result<Restored> restore_file(ObjectStore& store, const std::string& prefix,
                              const RestoreTarget& target, const std::string& output_file,
                              const RestoreOptions& options = {});

// Which state a restore of that time would give, without restoring it. kNotFound as above, and when
// the archive has no history that could name it.
Result<Bookmark> find_moment(ObjectStore& store, const std::string& prefix, std::int64_t unix_ms);

inline constexpr std::size_t kMergeFilesMax = 32;

}  // namespace offprint::archive
