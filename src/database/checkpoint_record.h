#pragma once

#include <cstdint>
#include <optional>

#include "database/file_fingerprint.h"
#include "database/state.h"
#include "journal/journal.h"

namespace offprint::database {

// The record that a database's file holds, fsynced, everything up to `covered`, and where the
// database stands. `closed_as`: the file as it was left; nothing: it is open.
journal::Draft checkpoint_record(std::uint64_t database_id, const DatabaseState& state,
                                 TxId covered, const std::optional<FileFingerprint>& closed_as);

}  // namespace offprint::database
