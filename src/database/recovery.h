#pragma once

#include <span>
#include <string>

#include "database/state.h"
#include "journal/journal.h"

namespace offprint::database {

// Brings a database file to `state`: writes the newest image of every page that the transactions in
// `records` (oldest first, all those above what the file surely holds) changed, as one SQLite
// transaction, through SQLite: a stock reader may be there and keeps its snapshot. Then
// checkpoints. True: the file itself holds everything, fsynced; false: a reader is in the way and
// part of it stays in the -wal for now.
Result<bool> recover_file(const std::string& path, const char* vfs, const DatabaseState& state,
                          std::span<const journal::Location> records, journal::Journal& journal);

}  // namespace offprint::database
