#include "ltx/page_delta.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include <lz4.h>

#include "base/assert.h"

namespace offprint::ltx {
namespace {

// How a delta is written, its first byte. NOTE: stored; do not change the values.
enum class Method : std::uint8_t {
  kRuns = 0,  // what differs, run by run: bytes that are equal, bytes that follow, these
  kLz4 = 1,   // one LZ4 block whose dictionary is the base
};

// Runs cost a fraction of what LZ4 does. Beyond this LZ4 may be smaller: bytes moved, or all is
// new.
constexpr std::size_t kRunsMax = 700;

const char* chars(const std::uint8_t* bytes) { return reinterpret_cast<const char*>(bytes); }

// The first byte is the lowest.
std::uint64_t word(const std::uint8_t* at) {
  std::uint64_t value;
  std::memcpy(&value, at, sizeof value);
  if constexpr (std::endian::native == std::endian::big) value = __builtin_bswap64(value);
  return value;
}

void append_varint(Bytes& to, std::size_t value) {
  for (; value >= 0x80; value >>= 7) to.push_back(static_cast<std::uint8_t>(value | 0x80));
  to.push_back(static_cast<std::uint8_t>(value));
}

// False: the bytes end, or it is greater than any page.
bool take_varint(ByteView& from, std::size_t& value) {
  value = 0;
  for (unsigned shift = 0; shift <= 14; shift += 7) {
    if (from.empty()) return false;
    const std::uint8_t byte = from[0];
    from = from.subspan(1);
    value |= static_cast<std::size_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

// Most of a page is equal: that is passed in large steps.
bool equal_step(const std::uint8_t* one, const std::uint8_t* two) {
  return ((word(one) ^ word(two)) | (word(one + 8) ^ word(two + 8)) |
          (word(one + 16) ^ word(two + 16)) | (word(one + 24) ^ word(two + 24))) == 0;
}

// False: there is too much of it; `to` holds a part.
bool append_runs(ByteView base, ByteView page, Bytes& to) {
  const std::size_t begin = to.size(), size = page.size();
  for (std::size_t at = 0, done = 0;;) {
    while (at + 32 <= size && equal_step(base.data() + at, page.data() + at)) at += 32;
    while (at + 8 <= size && word(base.data() + at) == word(page.data() + at)) at += 8;
    while (at < size && base[at] == page[at]) ++at;
    if (at == size) return true;
    // Up to eight bytes that are equal: after the last one that is not.
    std::size_t end = at + 1;
    while (end + 8 <= size) {
      const std::uint64_t differs = word(base.data() + end) ^ word(page.data() + end);
      if (differs == 0) break;
      end += (static_cast<std::size_t>(std::bit_width(differs)) + 7) / 8;
    }
    if (end + 8 > size) end = size;
    if (to.size() - begin + (end - at) > kRunsMax) return false;
    append_varint(to, at - done);
    append_varint(to, end - at);
    append(to, page.subspan(at, end - at));
    at = done = end;
  }
}

void append_lz4(ByteView base, ByteView page, Bytes& to) {
  thread_local LZ4_stream_t stream;
  LZ4_initStream(&stream, sizeof stream);
  LZ4_loadDict(&stream, chars(base.data()), static_cast<int>(base.size()));
  const std::size_t begin = to.size();
  const int bound = LZ4_compressBound(static_cast<int>(page.size()));
  to.resize(begin + static_cast<std::size_t>(bound));
  const int size = LZ4_compress_fast_continue(&stream, chars(page.data()),
                                              reinterpret_cast<char*>(to.data() + begin),
                                              static_cast<int>(page.size()), bound, 1);
  OFFPRINT_ASSERT(size > 0);
  to.resize(begin + static_cast<std::size_t>(size));
}

std::unexpected<Error> damaged() { return fail(Code::kCorrupt, "a page's delta is damaged"); }

Result<> apply_runs(ByteView base, ByteView delta, std::span<std::uint8_t> page) {
  if (base.size() != page.size()) return damaged();
  std::ranges::copy(base, page.begin());
  for (std::size_t at = 0; !delta.empty();) {
    std::size_t equal = 0, run = 0;
    if (!take_varint(delta, equal) || !take_varint(delta, run)) return damaged();
    if (equal > page.size() - at || run > page.size() - at - equal || run > delta.size())
      return damaged();
    at += equal;
    std::ranges::copy(delta.first(run), page.begin() + static_cast<std::ptrdiff_t>(at));
    delta = delta.subspan(run);
    at += run;
  }
  return {};
}

}  // namespace

void append_page_delta(ByteView base, ByteView page, Bytes& to) {
  const std::size_t begin = to.size();
  to.push_back(static_cast<std::uint8_t>(Method::kRuns));
  if (base.size() == page.size() && append_runs(base, page, to)) return;
  to.resize(begin);
  to.push_back(static_cast<std::uint8_t>(Method::kLz4));
  append_lz4(base, page, to);
}

Result<> apply_page_delta(ByteView base, ByteView delta, std::span<std::uint8_t> page) {
  if (delta.empty()) return damaged();
  const auto method = static_cast<Method>(delta[0]);
  delta = delta.subspan(1);
  if (method == Method::kRuns) return apply_runs(base, delta, page);
  if (method != Method::kLz4) return damaged();
  const int size = LZ4_decompress_safe_usingDict(
      chars(delta.data()), reinterpret_cast<char*>(page.data()), static_cast<int>(delta.size()),
      static_cast<int>(page.size()), chars(base.data()), static_cast<int>(base.size()));
  if (size < 0 || static_cast<std::size_t>(size) != page.size()) return damaged();
  return {};
}

}  // namespace offprint::ltx
