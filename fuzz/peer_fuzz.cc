// Frames between nodes: whatever comes is taken apart or refused, and what was taken apart has the
// same bytes again. The first byte chooses whether checksums are mended, so that deeper code is
// reached.
#include <cstdint>

#include "base/assert.h"
#include "base/crc32c.h"
#include "cluster/peer_wire.h"

using namespace offprint;
using namespace offprint::cluster;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  Bytes bytes(data + 1, data + size);
  if (data[0] % 2 == 1 && bytes.size() >= kPeerHeaderSize) {
    store_be<std::uint32_t>(bytes.data(),
                            static_cast<std::uint32_t>(bytes.size() - kPeerHeaderSize));
    store_be<std::uint32_t>(bytes.data() + 4, crc32c(ByteView(bytes).subspan(8)));
  }
  PeerFrameReader reader;
  reader.add(bytes);
  for (std::size_t at = 0;;) {
    auto frame = reader.next();
    if (!frame || !*frame) break;
    Bytes again;
    if (const auto* message = std::get_if<PeerMessage>(&**frame)) {
      append_message(again, *message);
    } else if (const auto* proof = std::get_if<PeerProof>(&**frame)) {
      append_proof(again, *proof);
    } else if (const auto* fill = std::get_if<FillFrame>(&**frame)) {
      append_fill(again, *fill);
    } else {
      append_hello(again, std::get<PeerHello>(**frame));
    }
    OFFPRINT_ASSERT(at + again.size() <= bytes.size());
    at += again.size();
  }
  return 0;
}
