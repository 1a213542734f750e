#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "archive/object_store.h"
#include "base/result.h"
#include "ltx/types.h"

namespace offprint::archive {

// A state that an archive can restore, and the transactions that lead to it from the one before:
// one by one they are not kept any more.
struct ArchivedMoment {
  TxId first;                // of those transactions; the last one is that of the bookmark
  Bookmark bookmark;         // of the state
  std::int64_t time_ms = 0;  // of the last transaction
  std::uint64_t bytes = 0;   // of the object that has them; of a snapshot: all of the database
  bool is_snapshot = false;  // that is what the object is
  std::string key;           // of the object
  std::optional<Bookmark> former;  // of the state before, of the same lineage; none: not there
};

// The newest states of this lineage before transaction `before`, at most `limit` of them, newest
// first. Lists the archive below `prefix`; where lists do not tell times, reads the head of one
// object for each. Blocks. kNotFound: there is no such archive, or none of Offprint's.
Result<std::vector<ArchivedMoment>> list_moments(ObjectStore& objects, const std::string& prefix,
                                                 const Lineage& lineage, TxId before,
                                                 std::size_t limit);

}  // namespace offprint::archive
