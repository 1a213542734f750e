#pragma once

#include "ltx/buffered_input.h"

// LZ4's own container ("frame"), as older LTX files hold their pages. Internal to this folder.
// The library's frame decoder is not used: it allocates what the frame claims (up to 8 MiB).
namespace offprint::ltx {

// XXH32 of `bytes` with seed 0: the checksum that frames carry.
std::uint32_t xxh32(ByteView bytes);

// Takes one frame from `input` and inflates it into `page`, which it must fill exactly. The frame
// must carry a content checksum and no dictionary. `input` must have room for
// LZ4_compressBound(page.size()) bytes. Errors: kCorrupt, and what the source answers.
Result<> read_lz4_frame(BufferedInput& input, std::span<std::uint8_t> page);

}  // namespace offprint::ltx
