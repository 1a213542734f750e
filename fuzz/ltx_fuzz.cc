// What no bytes may do to the LTX decoder: crash it, make it allocate what they claim, or be
// accepted without meaning the same after being encoded again.
//
// The first byte picks the input's form. Even: the rest is a file as it stands. Odd: the rest is a
// recipe for the reference writer, which puts right checksums on broken files, so that what lies
// behind the checksum is reached too.
#include <cstdio>
#include <cstdlib>

#include "ltx/codec.h"
#include "ltx/reference_writer.h"

namespace offprint::ltx {
namespace {

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

Bytes encode(const DecodedFile& file) {
  Bytes out;
  BytesSink sink(out);
  Encoder encoder(sink);
  require(encoder.begin(file.header).has_value(), "a decoded header can be encoded");
  for (const auto& [number, content] : file.pages) {
    require(encoder.page(number, content).has_value(), "decoded pages can be encoded");
  }
  require(encoder.finish(file.trailer.post_apply).has_value(), "a decoded trailer can be encoded");
  return out;
}

void check(ByteView bytes) {
  const auto first = decode(bytes);
  if (!first) {
    require(first.error().code() == Code::kCorrupt, "a refusal says corrupt");
    return;
  }
  const auto second = decode(encode(*first));
  require(second.has_value(), "what was encoded can be decoded");
  require(second->header == first->header, "the same header");
  require(second->pages == first->pages, "the same pages");
  require(second->trailer.post_apply == first->trailer.post_apply, "the same post-apply checksum");

  BytesSource source(bytes);
  ByteSource* inputs[] = {&source};
  Bytes out;
  BytesSink sink(out);
  require(compact(inputs, {.flags = first->header.flags}, sink).has_value(),
          "one file can be compacted");
  const auto compacted = decode(out);
  require(compacted.has_value() && compacted->pages == first->pages,
          "compacting one file changes no page");
}

// Takes numbers off the front of the input; zeros when it is used up.
class Recipe {
 public:
  explicit Recipe(ByteView bytes) : bytes_(bytes) {}
  std::uint8_t byte() { return bytes_.empty() ? 0 : take(1)[0]; }
  std::uint64_t number(std::size_t size) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < size; ++i) value = value << 8 | byte();
    return value;
  }
  ByteView take(std::size_t size) {
    const ByteView taken = bytes_.first(std::min(size, bytes_.size()));
    bytes_ = bytes_.subspan(taken.size());
    return taken;
  }
  bool empty() const { return bytes_.empty(); }

 private:
  ByteView bytes_;
};

reference::Frame cook_frame(Recipe& recipe, std::uint32_t page_size) {
  const std::uint8_t kind = recipe.byte();
  const PageNo number = (kind & 0x40) != 0 ? static_cast<PageNo>(recipe.number(4)) : recipe.byte();
  const ByteView stuff = recipe.take(recipe.byte());
  Bytes content(stuff.begin(), stuff.end());
  // Some pages have another length than they should.
  if ((kind & 0x20) == 0) content.resize(page_size);
  reference::Frame frame;
  if ((kind & 1) != 0) {
    frame = reference::block_frame(number, content);
  } else {
    LZ4F_preferences_t preferences = reference::usual_frame();
    if ((kind & 2) != 0) preferences.frameInfo.blockMode = LZ4F_blockLinked;
    if ((kind & 4) != 0) preferences.frameInfo.blockChecksumFlag = LZ4F_blockChecksumEnabled;
    if ((kind & 8) != 0) preferences.frameInfo.contentSize = content.size();
    frame = reference::lz4_frame(number, content, preferences);
  }
  if ((kind & 0x10) != 0 && !frame.payload.empty()) {
    frame.payload[recipe.number(2) % frame.payload.size()] ^= recipe.byte();
    if (frame.size) *frame.size ^= static_cast<std::uint32_t>(recipe.number(4));
    frame.flags = static_cast<std::uint16_t>(frame.flags ^ recipe.byte());
  }
  return frame;
}

Bytes cook(ByteView bytes) {
  Recipe recipe(bytes);
  reference::File file;
  const std::uint8_t kind = recipe.byte();
  Header& header = file.header;
  header.flags = (kind & 1) != 0 ? kNoChecksumFlag : 0;
  header.page_size = 512u << (recipe.byte() % 4);
  header.page_count =
      (kind & 2) != 0 ? static_cast<std::uint32_t>(recipe.number(4)) : recipe.byte();
  header.min_txid.value = recipe.byte();
  header.max_txid.value = header.min_txid.value + recipe.byte();
  if ((kind & 4) != 0) header.pre_apply.value = recipe.number(8);
  if ((kind & 8) != 0) header.wal_offset = static_cast<std::int64_t>(recipe.number(8));
  if ((kind & 16) != 0) header.wal_salt1 = static_cast<std::uint32_t>(recipe.number(4));
  if ((kind & 32) != 0) file.index_length = recipe.number(8);
  if ((kind & 64) != 0) {
    const ByteView index = recipe.take(recipe.byte());
    file.index = Bytes(index.begin(), index.end());
  }
  if ((kind & 128) != 0) file.post_apply = recipe.number(8);
  while (!recipe.empty() && file.frames.size() < 16)
    file.frames.push_back(cook_frame(recipe, header.page_size));
  if ((kind & 128) == 0 && header.tracks_checksum()) {
    file.post_apply = std::uint64_t{1} << 63;
    for (const auto& frame : file.frames) {
      file.post_apply ^=
          reference::page_crc(frame.number, frame.content) & ~(std::uint64_t{1} << 63);
    }
  }
  return file.bytes();
}

}  // namespace
}  // namespace offprint::ltx

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const offprint::ByteView rest{data + 1, size - 1};
  if (data[0] % 2 == 0) {
    offprint::ltx::check(rest);
  } else {
    offprint::ltx::check(offprint::ltx::cook(rest));
  }
  return 0;
}
