#include <fmt/format.h>
#include <lz4.h>

#include <algorithm>

#include "base/assert.h"
#include "ltx/buffered_input.h"
#include "ltx/checksum.h"
#include "ltx/layout.h"
#include "ltx/lz4_frame.h"

namespace offprint::ltx {
namespace {

// Read ahead at least this much, so that files of small pages take few reads.
constexpr std::size_t kInputSizeMin = std::size_t{16} << 10;

std::unexpected<Error> corrupt(std::string what) { return fail(Code::kCorrupt, std::move(what)); }

}  // namespace

struct Decoder::State {
  explicit State(ByteSource& source) : input(source) {}

  enum class Phase { kStart, kPages, kEnd, kOver };

  // Both take a page's whole frame, hash its header, and leave the content in `page`.
  Result<> read_block();
  Result<> read_frame();
  Result<> check_index();

  BufferedInput input;
  Phase phase = Phase::kStart;
  Header header;
  std::optional<PageOrder> order;
  Crc64 crc;
  Checksum rolling = kEmptyDatabase;
  PageIndex index;  // as the file's own must be
  std::size_t block_size_max = 0;
  std::unique_ptr<std::uint8_t[]> page;
};

Decoder::Decoder(ByteSource& source) : state_(std::make_unique<State>(source)) {}
Decoder::~Decoder() = default;

Result<Header> Decoder::begin() {
  State& state = *state_;
  OFFPRINT_ASSERT(state.phase == State::Phase::kStart);
  state.phase = State::Phase::kOver;
  state.input.reserve(kInputSizeMin);
  OFFPRINT_TRY_ASSIGN(ByteView raw, state.input.need(kHeaderSize));
  OFFPRINT_TRY_ASSIGN(state.header, load_header(raw.first<kHeaderSize>()));
  state.crc.update(raw);
  state.input.take(kHeaderSize);

  const std::uint32_t page_size = state.header.page_size;
  state.block_size_max = static_cast<std::size_t>(LZ4_compressBound(static_cast<int>(page_size)));
  state.input.reserve(2 * state.block_size_max);
  state.page = std::make_unique_for_overwrite<std::uint8_t[]>(page_size);
  state.order.emplace(state.header);
  state.phase = State::Phase::kPages;
  return state.header;
}

Result<> Decoder::State::read_block() {
  constexpr std::size_t kPrefix = kPageHeaderSize + kSizeFieldSize;
  OFFPRINT_TRY_ASSIGN(ByteView prefix, input.need(kPrefix));
  const std::size_t size = load_be<std::uint32_t>(prefix.data() + kPageHeaderSize);
  if (size == 0 || size > block_size_max)
    return corrupt(fmt::format("LZ4 block of {} bytes", size));
  crc.update(prefix);
  input.take(kPrefix);

  OFFPRINT_TRY_ASSIGN(ByteView block, input.need(size));
  const int page_size = static_cast<int>(header.page_size);
  const int inflated =
      LZ4_decompress_safe(reinterpret_cast<const char*>(block.data()),
                          reinterpret_cast<char*>(page.get()), static_cast<int>(size), page_size);
  if (inflated < 0) return corrupt("LZ4 block does not inflate");
  if (inflated != page_size)
    return corrupt(fmt::format("LZ4 block inflates to {} bytes", inflated));
  input.take(size);
  return {};
}

Result<> Decoder::State::read_frame() {
  OFFPRINT_TRY_ASSIGN(ByteView prefix, input.need(kPageHeaderSize));
  crc.update(prefix);
  input.take(kPageHeaderSize);
  return read_lz4_frame(input, {page.get(), header.page_size});
}

Result<std::optional<Decoder::Page>> Decoder::next() {
  State& state = *state_;
  OFFPRINT_ASSERT(state.phase == State::Phase::kPages);
  state.phase = State::Phase::kOver;
  const std::uint64_t offset = state.input.position();
  OFFPRINT_TRY_ASSIGN(ByteView prefix, state.input.need(kPageHeaderSize));
  const PageNo number = load_be<std::uint32_t>(prefix.data());
  const std::uint16_t flags = load_be<std::uint16_t>(prefix.data() + 4);
  if (number == 0 && flags == 0) {
    OFFPRINT_TRY(state.order->finish());
    state.crc.update(prefix);
    state.input.take(kPageHeaderSize);
    state.phase = State::Phase::kEnd;
    return std::nullopt;
  }
  if ((flags & ~kSizedBlockFlag) != 0)
    return corrupt(fmt::format("unknown page flags {:#06x}", flags));
  OFFPRINT_TRY(state.order->take(number));

  const bool sized_block = (flags & kSizedBlockFlag) != 0;
  if (auto read = sized_block ? state.read_block() : state.read_frame(); !read) {
    return fail(read.error().with_context(fmt::format("page {}", number)));
  }
  const ByteView content{state.page.get(), state.header.page_size};
  state.crc.update(content);
  state.index.add(number, offset, state.input.position() - offset);
  if (state.header.is_snapshot() && state.header.tracks_checksum()) {
    state.rolling = toggle(state.rolling, page_checksum(number, content));
  }
  state.phase = State::Phase::kPages;
  return Page{number, content};
}

// The only index that fits is the one that the encoder of these frames would have written.
Result<> Decoder::State::check_index() {
  ByteView expected = index.finish();
  crc.update(expected);
  while (!expected.empty()) {
    OFFPRINT_TRY_ASSIGN(ByteView stored, input.take_some(expected.size()));
    if (!std::ranges::equal(stored, expected.first(stored.size()))) {
      return corrupt("page index does not agree with the pages");
    }
    expected = expected.subspan(stored.size());
  }
  return {};
}

Result<Trailer> Decoder::finish() {
  State& state = *state_;
  OFFPRINT_ASSERT(state.phase == State::Phase::kEnd);
  state.phase = State::Phase::kOver;
  OFFPRINT_TRY(state.check_index());
  OFFPRINT_TRY_ASSIGN(ByteView raw, state.input.need(kTrailerSize));
  const Trailer trailer{Checksum{load_be<std::uint64_t>(raw.data())},
                        Checksum{load_be<std::uint64_t>(raw.data() + 8)}};
  state.crc.update(raw.first(8));
  state.input.take(kTrailerSize);
  if (trailer.file.value != (kChecksumFlag | state.crc.value()))
    return corrupt("wrong file checksum");
  OFFPRINT_TRY(validate_post_apply(state.header, trailer.post_apply));
  if (state.header.is_snapshot() && state.header.tracks_checksum() &&
      state.rolling != trailer.post_apply) {
    return corrupt("post-apply checksum is not that of the snapshot's pages");
  }
  OFFPRINT_TRY_ASSIGN(const bool ended, state.input.at_end());
  if (!ended) return corrupt("bytes after the end of the LTX file");
  return trailer;
}

Result<std::size_t> BytesSource::read(std::span<std::uint8_t> to) {
  const std::size_t size = std::min(to.size(), from_.size());
  std::copy_n(from_.begin(), size, to.begin());
  from_ = from_.subspan(size);
  return size;
}

Result<DecodedFile> decode(ByteView file) {
  BytesSource source(file);
  Decoder decoder(source);
  DecodedFile decoded;
  OFFPRINT_TRY_ASSIGN(decoded.header, decoder.begin());
  for (;;) {
    OFFPRINT_TRY_ASSIGN(const auto page, decoder.next());
    if (!page) break;
    decoded.pages.emplace_back(page->number, Bytes(page->content.begin(), page->content.end()));
  }
  OFFPRINT_TRY_ASSIGN(decoded.trailer, decoder.finish());
  return decoded;
}

}  // namespace offprint::ltx
