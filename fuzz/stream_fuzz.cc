// Bytes from a network or a damaged disk: frames of a replication stream, page hashes, and the note
// beside a replica. The first byte chooses the parser.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/assert.h"
#include "replica/position_file.h"
#include "replica/stream_format.h"
#include "replica/transaction_delta.h"

namespace {

using offprint::ByteView;
using namespace offprint::replica;

// A copy whose pages hold their number.
void rebuild_all(ByteView delta) {
  auto former = [](offprint::PageNo page, std::span<std::uint8_t> image) {
    std::ranges::fill(image, static_cast<std::uint8_t>(page));
    return offprint::Result<bool>(page < 100);
  };
  const offprint::Checksum before{7};
  auto made = rebuild(delta, before, 512, former);
  if (!made) return;
  offprint::PageNo last = 0;
  for (const auto& [page, image] : made->file.pages) {
    OFFPRINT_ASSERT(page > last && page <= made->file.header.page_count && image.size() == 512);
    last = page;
  }
}

void parse_payload(const Frame& frame) {
  OFFPRINT_ASSERT(frame.payload.size() <= kPayloadMax);
  switch (frame.kind) {
    case FrameKind::kHello:
      (void)parse_hello(frame.payload);
      break;
    case FrameKind::kDatabase:
      (void)parse_database(frame.payload);
      break;
    case FrameKind::kStart:
    case FrameKind::kPosition:
      (void)parse_position(frame.payload);
      break;
    case FrameKind::kTransaction: {
      auto first = parse_transaction_first(frame.payload);
      if (first) OFFPRINT_ASSERT(first->part.size() <= frame.payload.size());
      break;
    }
    case FrameKind::kSnapshotBegin:
      (void)parse_snapshot_begin(frame.payload);
      break;
    case FrameKind::kPages: {
      PagesReader pages(frame.payload, 512);
      for (;;) {
        auto page = pages.next();
        if (!page || !*page) break;
        OFFPRINT_ASSERT((*page)->number != 0 && (*page)->image.size() == 512);
      }
      break;
    }
    case FrameKind::kSnapshotEnd:
      break;
    case FrameKind::kResync:
      (void)parse_resync(frame.payload);
      break;
    case FrameKind::kEnd:
      (void)parse_end(frame.payload);
      break;
    case FrameKind::kAlive:
      break;
    case FrameKind::kRevocation:
      (void)parse_revocation(frame.payload);
      break;
    case FrameKind::kDelta:
      rebuild_all(frame.payload);
      break;
    case FrameKind::kSource:
      (void)parse_source(frame.payload);
      break;
  }
}

// The frames must not depend on how the bytes were cut.
std::size_t read_stream(ByteView bytes, std::size_t piece) {
  FrameReader reader;
  std::size_t frames = 0;
  while (!bytes.empty()) {
    std::size_t size = piece < bytes.size() ? piece : bytes.size();
    reader.feed(bytes.first(size));
    bytes = bytes.subspan(size);
    for (;;) {
      auto frame = reader.next();
      if (!frame) return frames;
      if (!*frame) break;
      ++frames;
      parse_payload(**frame);
    }
  }
  return frames;
}

// Checksums are hard to guess: the payload as one kind of frame.
void read_payload(ByteView bytes) {
  Frame frame;
  if (bytes.empty() || bytes[0] < 1 || bytes[0] > static_cast<std::uint8_t>(FrameKind::kSource))
    return;
  frame.kind = static_cast<FrameKind>(bytes[0]);
  frame.payload = bytes.subspan(1);
  if (frame.payload.size() <= kPayloadMax) parse_payload(frame);
}

void read_note(ByteView bytes) {
  auto note = decode_note(bytes);
  if (!note) return;
  offprint::Bytes again = encode_note(*note);
  auto back = decode_note(again);
  OFFPRINT_ASSERT(back && *back == *note);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  ByteView bytes(data + 1, size - 1);
  switch (data[0] % 4) {
    case 0: {
      std::size_t whole = read_stream(bytes, bytes.size());
      OFFPRINT_ASSERT(whole == read_stream(bytes, 7));
      break;
    }
    case 1:
      read_payload(bytes);
      break;
    case 2:
      (void)parse_page_hashes(bytes);
      break;
    case 3:
      read_note(bytes);
      break;
  }
  return 0;
}
