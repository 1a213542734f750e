#pragma once

#include <functional>
#include <span>

#include "base/bytes.h"
#include "base/result.h"
#include "ltx/codec.h"
#include "ltx/types.h"

// A transaction as what differs from the pages that it changed: a few hundred bytes for a row's
// change. Format: docs/format/stream.md, "Deltas". Nothing here does I/O. Thread: any.
namespace offprint::replica {

// What a follower names in the request header (or ?encodings=) that it understands it.
inline constexpr std::string_view kEncodingsHeader = "Offprint-Stream-Encodings";
inline constexpr std::string_view kDeltaEncoding = "delta";
// Whether a list of encodings, separated by commas, has this one. Unknown ones do not matter.
bool has_encoding(std::string_view list, std::string_view encoding);

// Bytes of page images in one delta: larger transactions travel as LTX files.
inline constexpr std::size_t kDeltaImagesMax = 16 << 20;
// A delta is one frame's payload.
inline constexpr std::size_t kDeltaMax = 512 << 10;

struct DeltaHead {
  Epoch epoch;
  TxId txid;
  std::int64_t timestamp_ms = 0;
  std::uint32_t page_size = 0;
  std::uint32_t page_count = 0;  // of the database, after it
  Checksum before;               // rolling; not sent: both sides know it
  Checksum after;
};

// Both images as they are sent in LTX files. `before` is empty when the page was not there.
struct DeltaPage {
  PageNo number = 0;
  ByteView before;
  ByteView after;
};

// `pages` ascend. Nothing: it would be larger than the limits above.
std::optional<Bytes> encode_delta(const DeltaHead& head, std::span<const DeltaPage> pages);

struct DeltaTransaction {
  Epoch epoch;
  ltx::DecodedFile file;
};
// Fills `image` with the page as the copy has it now, as it was sent; false: it has none.
using FormerPage = std::function<Result<bool>(PageNo page, std::span<std::uint8_t> image)>;

// Makes the transaction out of a delta and the copy's pages, of `page_size` bytes. All images are
// proven to be the primary's; that the copy will be what the primary is, is proven when they are
// applied. Memory: the images, at most kDeltaImagesMax. Errors: kCorrupt: no delta. kConflict: it
// was not made upon what the copy has: the transaction is to be had as an LTX file. And what
// `former` answers.
Result<DeltaTransaction> rebuild(ByteView delta, Checksum before, std::uint32_t page_size,
                                 const FormerPage& former);

}  // namespace offprint::replica
