#pragma once

#include <memory>
#include <span>
#include <string>

#include "base/file_system.h"
#include "database/store.h"

namespace offprint::database {

struct PastSource {
  std::unique_ptr<Snapshot> newest;  // it starts from this …
  std::span<const LogEntry> undone;  // … and takes these back: all after `at`, oldest first
  Bookmark at;                       // one before newest->position() at least
  FileSystem& files;                 // pages that differ wait in a file …
  std::string path;                  // … of this name, which is removed at once
};

// The state that a database had, made of what it is and what the log says its pages were. Its
// checksum is proven. Memory: 8 bytes for each page that differs. Blocks. kBehind: the log does not
// lead back there; kCorrupt.
Result<std::unique_ptr<Snapshot>> make_past_snapshot(PastSource source, journal::Journal& journal);

// A state that an LTX snapshot holds: it is decoded and proven, into such a file.
Result<std::unique_ptr<Snapshot>> make_stored_snapshot(ltx::ByteSource& from, const Bookmark& at,
                                                       FileSystem& files, const std::string& path);

}  // namespace offprint::database
