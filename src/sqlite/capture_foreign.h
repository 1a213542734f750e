#pragma once

#include <cstdint>

#include <sqlite3.h>

#include "sqlite/capture_frames.h"
#include "sqlite/capture_wal.h"

namespace offprint::sqlite {

enum class ForeignChange {
  kNone,     // nobody committed
  kFrames,   // somebody did, and all of it stands in the -wal
  kUnknown,  // somebody did or may have done, and it cannot be told what
};

// Compares the wal-index header that our last transaction left with the one found at the next WRITE
// lock. For kFrames `frames` notes the foreign frames (their images stay in the file). Call under
// the WRITE lock. May throw bad_alloc.
ForeignChange find_foreign_change(const WalIndexHeader& left, const WalIndexHeader& now,
                                  sqlite3_file* wal, FrameCollector& frames);

}  // namespace offprint::sqlite
