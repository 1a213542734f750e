#pragma once

#include <span>
#include <string>

#include "database/state.h"
#include "journal/journal.h"
#include "sqlite/page_apply.h"

namespace offprint::database {

// Writes, in the applier's open transaction, the newest image of every page that the transactions
// in `records` (oldest first) carry, none above `page_count`. `new_history`: the file becomes
// something that does not follow on what it is, so page 1 gets a schema cookie that no reader has
// met (DESIGN: a cached schema would read the wrong columns).
Result<> write_newest_images(sqlite::PageApplier& applier, std::uint32_t page_size,
                             std::uint32_t page_count, std::span<const journal::Location> records,
                             bool new_history, journal::Journal& journal);

// Brings a database file to `state`: writes the newest image of every page that the transactions in
// `records` (oldest first, all those above what the file surely holds) changed, as one SQLite
// transaction, through SQLite: a stock reader may be there and keeps its snapshot. Then
// checkpoints. True: the file itself holds everything, fsynced; false: a reader is in the way and
// part of it stays in the -wal for now.
Result<bool> recover_file(const std::string& path, const char* vfs, const DatabaseState& state,
                          std::span<const journal::Location> records, bool new_history,
                          journal::Journal& journal);

}  // namespace offprint::database
