#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "archive/object_store.h"
#include "archive/restore.h"
#include "base/file_system.h"
#include "base/result.h"
#include "ltx/types.h"

namespace offprint::archive {

// What became of one database of the node.
struct NodeDatabase {
  enum class State {
    kRestored,
    kThere,    // by an earlier run
    kEmpty,    // the archive has none of its transactions; it is there without any
    kDamaged,  // `note` says what is wrong
    kLeftOut,  // `note` says why
  };
  std::string name;
  State state = State::kLeftOut;
  Bookmark bookmark;                 // where it goes on from
  std::optional<Restored> restored;  // from the archive in this run
  std::string note;
};

struct NodeRestoreOptions {
  std::string directory;              // the data folder: absent, empty, or begun by an earlier run
  std::optional<std::int64_t> at_ms;  // all databases as they were then; nothing: the newest
  int jobs = 4;                       // databases at once; each takes up to 50 MiB
  bool without_damaged = false;       // go on without databases that cannot be restored
  std::function<void(const NodeDatabase&)> restored;  // one after the other, on any thread
  // About how much of all is done. One call at a time, on any thread.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;
  const std::atomic<bool>* cancelled = nullptr;
  FileSystem* files = &FileSystem::real();
};

struct NodeRestored {
  bool has_catalog = false;             // else the databases were found by their histories
  std::vector<NodeDatabase> databases;  // by name
  std::vector<std::string> dropped;     // the archive has them, the node had dropped them
  std::vector<std::string> lost_tags;   // with what is wrong; of a run that restores the catalog
  bool is_complete() const;             // the folder can be served
};

// Makes a node's data folder from its archive: the list of databases with what it says of them, and
// each of them, in the same lineage and with an epoch above all that the archive has, because what
// came later is lost. Each is proven by the archive's checksums. May be interrupted and called
// again with the same options; until it is complete the folder is not served. Blocks. Errors:
// kConflict the folder has something else; kNotFound nothing to restore; kCorrupt the list of
// databases is damaged; kUnavailable cancelled, or the store does not answer; what the file system
// answers.
Result<NodeRestored> restore_node(ObjectStore& objects, const NodeRestoreOptions& options);

}  // namespace offprint::archive
