#pragma once

#include <span>

#include "base/bytes.h"
#include "base/result.h"

// A page as what differs from another image of it: one LZ4 block whose dictionary is that image. A
// row's change is 50 to 300 bytes, whatever the page size. Thread: any.
namespace offprint::ltx {

// Appends to `to` what makes `page` out of `base`, which may be empty: then it is `page` itself,
// compressed. Both are at most 65536 bytes.
void append_page_delta(ByteView base, ByteView page, Bytes& to);

// Its inverse: fills all of `page`. kCorrupt: `delta` does not give a page of this size.
Result<> apply_page_delta(ByteView base, ByteView delta, std::span<std::uint8_t> page);

}  // namespace offprint::ltx
