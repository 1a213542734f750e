#pragma once

#include "ltx/buffered_input.h"

// LZ4's own container ("frame"), as LTX files for older readers hold their pages. Internal to this
// folder. The library's frame decoder is not used: it allocates what the frame claims (up to 8
// MiB).
namespace offprint::ltx {

// XXH32 of `bytes` with seed 0: the checksum that frames carry.
std::uint32_t xxh32(ByteView bytes);

// Takes one frame from `input` and inflates it into `page`, which it must fill exactly. The frame
// must carry a content checksum and no dictionary. `input` must have room for
// LZ4_compressBound(page.size()) bytes. Errors: kCorrupt, and what the source answers.
Result<> read_lz4_frame(BufferedInput& input, std::span<std::uint8_t> page);

// What a frame adds to its block: descriptor, block size, end mark, content checksum.
inline constexpr std::size_t kLz4FrameOverhead = 7 + 4 + 4 + 4;

// Writes `page` (at most 64 KiB) as one frame with one block, raw where it does not shrink, and a
// content checksum; answers its size. `to` has room for page.size() + kLz4FrameOverhead bytes;
// `lz4` is scratch memory (an LZ4_stream_t), `acceleration` LZ4's.
std::size_t write_lz4_frame(ByteView page, void* lz4, int acceleration, std::uint8_t* to);

}  // namespace offprint::ltx
