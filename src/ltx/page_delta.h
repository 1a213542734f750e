#pragma once

#include <span>

#include "base/bytes.h"
#include "base/result.h"

// A page as what differs from another image of it: 50 to 300 bytes for a row's change, whatever the
// page size. Format: docs/format/journal.md, "Undo". Thread: any.
namespace offprint::ltx {

// Appends to `to` what makes `page` out of `base`, which is of the same size, or empty: then it is
// `page` itself, compressed. At most 65536 bytes.
void append_page_delta(ByteView base, ByteView page, Bytes& to);

// Its inverse: fills all of `page`. kCorrupt: `delta` does not give a page of this size.
Result<> apply_page_delta(ByteView base, ByteView delta, std::span<std::uint8_t> page);

}  // namespace offprint::ltx
