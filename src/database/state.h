#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "ltx/types.h"

namespace offprint::database {

// Where a hosted database stands after a transaction: all that is needed to go on from there.
// Stands in every transaction and checkpoint record of the journal (docs/format/journal.md,
// "Database state").
struct DatabaseState {
  Position position;
  std::uint32_t page_size = 0;
  std::uint32_t page_count = 0;  // 0: nothing was ever written
  std::int64_t timestamp_ms = 0;
  // The first 100 bytes of page 1 as its last transaction carried them. The file's own may differ
  // in the counters that SQLite rewrites when pages are applied; checksums are always over these.
  std::array<std::uint8_t, 100> header{};

  static DatabaseState never_written(Lineage lineage, Epoch epoch, std::uint32_t page_size);
  Bytes encode() const;
  // kCorrupt: wrong size. kInvalid: a newer version.
  static Result<DatabaseState> decode(ByteView bytes);
};

}  // namespace offprint::database
