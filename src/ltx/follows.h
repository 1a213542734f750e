#pragma once

#include "base/result.h"
#include "ltx/codec.h"
#include "ltx/types.h"

namespace offprint::ltx {

// Checks that a transaction follows on `current`. kBehind: it does not (the stream skipped or
// repeated something). kConflict: it was made upon another content: the copy diverged. kCorrupt: no
// checksum, or no transaction.
Result<> check_follows(const Position& current, Epoch epoch, const Header& header);

}  // namespace offprint::ltx
