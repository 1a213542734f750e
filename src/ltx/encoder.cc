#include <lz4.h>

#include <algorithm>

#include "base/assert.h"
#include "ltx/checksum.h"
#include "ltx/layout.h"
#include "ltx/lz4_frame.h"

namespace offprint::ltx {
namespace {

// The sink is called when this many bytes have gathered.
constexpr std::size_t kFlushSize = std::size_t{64} << 10;

// LZ4's speed for size: on SQLite pages 4 costs 4 % in size against 1 and saves a third of the
// time.
constexpr int kAcceleration = 4;

// A rule that the caller broke.
std::unexpected<Error> invalid(const Error& error) { return fail(Code::kInvalid, error.message()); }

}  // namespace

struct Encoder::State {
  State(ByteSink& to, PageEncoding pages_as) : sink(to), encoding(pages_as) {}

  enum class Phase { kIdle, kPages };

  void append(ByteView bytes) {
    std::memcpy(buffer.get() + used, bytes.data(), bytes.size());
    used += bytes.size();
  }
  Result<> flush() {
    if (used == 0) return {};
    flushed += used;
    const std::size_t size = std::exchange(used, 0);
    return sink.write({buffer.get(), size});
  }
  std::uint64_t position() const { return flushed + used; }
  struct Written {
    std::size_t prefix;  // what the file's checksum covers before the page's content
    std::size_t size;    // of all
  };
  // A page with its header, at the buffer's end.
  Written write_frame(PageNo page, ByteView content);
  // The index may be larger than the buffer.
  Result<> write_index();

  ByteSink& sink;
  const PageEncoding encoding;
  Phase phase = Phase::kIdle;
  Header header;
  std::optional<PageOrder> order;
  Crc64 crc;
  Checksum rolling;
  PageIndex index;
  std::size_t frame_size_max = 0;  // page header and the largest block or frame
  std::unique_ptr<std::uint8_t[]> buffer;
  std::size_t capacity = 0;
  std::size_t used = 0;
  std::uint64_t flushed = 0;
  LZ4_stream_t lz4;
};

Encoder::Encoder(ByteSink& sink, PageEncoding encoding)
    : state_(std::make_unique<State>(sink, encoding)) {}
Encoder::~Encoder() = default;

std::uint64_t Encoder::size() const { return state_->position(); }

Result<> Encoder::begin(const Header& header) {
  State& state = *state_;
  state.phase = State::Phase::kIdle;
  if (auto valid = header.validate(); !valid) return invalid(valid.error());

  state.header = header;
  state.order.emplace(header);
  state.crc = Crc64();
  state.rolling = kEmptyDatabase;
  state.index.clear();
  state.used = 0;
  state.flushed = 0;
  state.frame_size_max =
      kPageHeaderSize + std::max(kSizeFieldSize + static_cast<std::size_t>(LZ4_compressBound(
                                                      static_cast<int>(header.page_size))),
                                 header.page_size + kLz4FrameOverhead);
  if (const std::size_t needed = kFlushSize + state.frame_size_max; state.capacity < needed) {
    state.buffer = std::make_unique_for_overwrite<std::uint8_t[]>(needed);
    state.capacity = needed;
  }

  std::uint8_t raw[kHeaderSize];
  store_header(header, raw);
  state.append(raw);
  state.crc.update(raw);
  state.phase = State::Phase::kPages;
  return {};
}

Encoder::State::Written Encoder::State::write_frame(PageNo page, ByteView content) {
  std::uint8_t* frame = buffer.get() + used;
  store_be<std::uint32_t>(frame, page);
  if (encoding == PageEncoding::kFrame) {
    store_be<std::uint16_t>(frame + 4, 0);
    return {kPageHeaderSize, kPageHeaderSize + write_lz4_frame(content, &lz4, kAcceleration,
                                                               frame + kPageHeaderSize)};
  }
  constexpr std::size_t kPrefix = kPageHeaderSize + kSizeFieldSize;
  const int block_size = LZ4_compress_fast_extState(
      &lz4, reinterpret_cast<const char*>(content.data()), reinterpret_cast<char*>(frame + kPrefix),
      static_cast<int>(content.size()), static_cast<int>(frame_size_max - kPrefix), kAcceleration);
  OFFPRINT_ASSERT(block_size > 0);  // the bound leaves room for a block of literals alone
  store_be<std::uint16_t>(frame + 4, kSizedBlockFlag);
  store_be<std::uint32_t>(frame + 6, static_cast<std::uint32_t>(block_size));
  return {kPrefix, kPrefix + static_cast<std::size_t>(block_size)};
}

Result<> Encoder::page(PageNo page, ByteView content) {
  State& state = *state_;
  OFFPRINT_ASSERT(state.phase == State::Phase::kPages);
  state.phase = State::Phase::kIdle;
  if (content.size() != state.header.page_size)
    return fail(Code::kInvalid, "page content of another size");
  if (auto taken = state.order->take(page); !taken) return invalid(taken.error());

  const std::uint64_t offset = state.position();
  const std::uint8_t* frame = state.buffer.get() + state.used;
  const State::Written written = state.write_frame(page, content);
  state.used += written.size;
  state.index.add(page, offset, written.size);

  state.crc.update({frame, written.prefix});
  state.crc.update(content);
  if (state.header.is_snapshot() && state.header.tracks_checksum()) {
    state.rolling = toggle(state.rolling, page_checksum(page, content));
  }
  if (state.used >= kFlushSize) OFFPRINT_TRY(state.flush());
  state.phase = State::Phase::kPages;
  return {};
}

Result<> Encoder::State::write_index() {
  const ByteView bytes = index.finish();
  crc.update(bytes);
  if (bytes.size() <= capacity - used) {
    append(bytes);
    return {};
  }
  OFFPRINT_TRY(flush());
  flushed += bytes.size();
  return sink.write(bytes);
}

Result<Trailer> Encoder::finish(Checksum post_apply) {
  State& state = *state_;
  OFFPRINT_ASSERT(state.phase == State::Phase::kPages);
  state.phase = State::Phase::kIdle;
  const Header& header = state.header;
  if (auto complete = state.order->finish(); !complete) return invalid(complete.error());
  if (auto valid = validate_post_apply(header, post_apply); !valid) return invalid(valid.error());
  if (header.is_snapshot() && header.tracks_checksum() && state.rolling != post_apply) {
    return fail(Code::kInvalid, "post-apply checksum is not that of the snapshot's pages");
  }

  const std::uint8_t end_mark[kPageHeaderSize] = {};
  state.append(end_mark);
  state.crc.update(end_mark);
  OFFPRINT_TRY(state.write_index());

  std::uint8_t raw[kTrailerSize];
  store_be<std::uint64_t>(raw, post_apply.value);
  state.crc.update({raw, 8});
  const Trailer trailer{post_apply, Checksum{kChecksumFlag | state.crc.value()}};
  store_be<std::uint64_t>(raw + 8, trailer.file.value);
  if (state.capacity - state.used < sizeof raw) OFFPRINT_TRY(state.flush());
  state.append(raw);
  OFFPRINT_TRY(state.flush());
  return trailer;
}

}  // namespace offprint::ltx
