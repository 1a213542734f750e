#include "ltx/page_delta.h"

#include <lz4.h>

#include "base/assert.h"

namespace offprint::ltx {
namespace {

const char* chars(const std::uint8_t* bytes) { return reinterpret_cast<const char*>(bytes); }

}  // namespace

void append_page_delta(ByteView base, ByteView page, Bytes& to) {
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

Result<> apply_page_delta(ByteView base, ByteView delta, std::span<std::uint8_t> page) {
  const int size = LZ4_decompress_safe_usingDict(
      chars(delta.data()), reinterpret_cast<char*>(page.data()), static_cast<int>(delta.size()),
      static_cast<int>(page.size()), chars(base.data()), static_cast<int>(base.size()));
  if (size < 0 || static_cast<std::size_t>(size) != page.size())
    return fail(Code::kCorrupt, "a page's delta is damaged");
  return {};
}

}  // namespace offprint::ltx
