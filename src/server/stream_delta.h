#pragma once

#include <optional>

#include "base/bytes.h"
#include "ltx/types.h"

namespace offprint::server {

// A transaction's LTX file and what its pages were before (database/undo.h) as a delta for
// followers that have those. Nothing: it is larger than a delta may be, or the two do not belong
// together. Thread: any. Memory: its pages' images twice.
std::optional<Bytes> make_delta(Epoch epoch, ByteView ltx, ByteView undo);

}  // namespace offprint::server
