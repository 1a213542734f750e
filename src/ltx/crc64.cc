#include "ltx/crc64.h"

#include <array>

#include "base/assert.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace offprint::ltx::crc64 {
namespace {

// kTables[k][b] is the state that byte b leaves after k further zero bytes.
using Tables = std::array<std::array<std::uint64_t, 256>, 16>;

constexpr Tables make_tables() {
  Tables tables{};
  for (std::uint64_t byte = 0; byte < 256; ++byte) {
    std::uint64_t state = byte;
    for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ ((state & 1) != 0 ? kPolynomial : 0);
    tables[0][byte] = state;
  }
  for (std::size_t k = 1; k < tables.size(); ++k) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint64_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}

constexpr Tables kTables = make_tables();

std::uint64_t load_le(const std::uint8_t* from) {
  std::uint64_t value = load_be<std::uint64_t>(from);
  return __builtin_bswap64(value);
}

// What the eight bytes of `word`, lowest first, leave after `zeros` further zero bytes.
std::uint64_t lookup(std::uint64_t word, std::size_t zeros) {
  std::uint64_t state = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    state ^= kTables[zeros + 7 - i][word & 0xff];
    word >>= 8;
  }
  return state;
}

}  // namespace

std::uint64_t update_by_tables(std::uint64_t state, ByteView bytes) {
  const std::uint8_t* at = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= 16; at += 16, left -= 16) {
    state = lookup(state ^ load_le(at), 8) ^ lookup(load_le(at + 8), 0);
  }
  for (; left > 0; ++at, --left) state = (state >> 8) ^ kTables[0][(state ^ *at) & 0xff];
  return state;
}

#if defined(__x86_64__)

namespace {

// x^exponent modulo the polynomial, reflected (bit 63 is x^0).
constexpr std::uint64_t power_of_x(int exponent) {
  std::uint64_t value = std::uint64_t{1} << 63;
  for (int i = 0; i < exponent; ++i) value = (value >> 1) ^ ((value & 1) != 0 ? kPolynomial : 0);
  return value;
}

// A 16-byte block is the polynomial L·x^64 + H, L its first eight bytes. Moving it on by `bits`
// multiplies L by x^(bits+64) and H by x^bits; one less, because the product of two reflected
// 64-bit numbers comes out one place off.
template <int bits>
__attribute__((target("pclmul"))) inline __m128i fold(__m128i block) {
  constexpr std::uint64_t low = power_of_x(bits + 63);
  constexpr std::uint64_t high = power_of_x(bits - 1);
  const __m128i factors =
      _mm_set_epi64x(static_cast<std::int64_t>(high), static_cast<std::int64_t>(low));
  return _mm_xor_si128(_mm_clmulepi64_si128(block, factors, 0x00),
                       _mm_clmulepi64_si128(block, factors, 0x11));
}

inline __m128i load(const std::uint8_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

}  // namespace

bool can_fold() {
  static const bool can = __builtin_cpu_supports("pclmul") != 0;
  return can;
}

__attribute__((target("pclmul"))) std::uint64_t update_by_folding(std::uint64_t state,
                                                                  ByteView bytes) {
  if (bytes.size() < 64) return update_by_tables(state, bytes);
  const std::uint8_t* at = bytes.data();
  std::size_t left = bytes.size() - 64;
  __m128i a = _mm_xor_si128(load(at), _mm_cvtsi64_si128(static_cast<std::int64_t>(state)));
  __m128i b = load(at + 16);
  __m128i c = load(at + 32);
  __m128i d = load(at + 48);
  for (at += 64; left >= 64; at += 64, left -= 64) {
    a = _mm_xor_si128(fold<512>(a), load(at));
    b = _mm_xor_si128(fold<512>(b), load(at + 16));
    c = _mm_xor_si128(fold<512>(c), load(at + 32));
    d = _mm_xor_si128(fold<512>(d), load(at + 48));
  }
  b = _mm_xor_si128(b, fold<128>(a));
  c = _mm_xor_si128(c, fold<128>(b));
  d = _mm_xor_si128(d, fold<128>(c));
  for (; left >= 16; at += 16, left -= 16) d = _mm_xor_si128(fold<128>(d), load(at));
  // The 16 bytes that remain are congruent to all that was read: their CRC from an empty state is
  // the state.
  std::uint8_t rest[16];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(rest), d);
  return update_by_tables(update_by_tables(0, rest), {at, left});
}

#else

bool can_fold() { return false; }
std::uint64_t update_by_folding(std::uint64_t, ByteView) {
  OFFPRINT_ASSERT(!"no carry-less multiplication here");
  __builtin_unreachable();
}

#endif

}  // namespace offprint::ltx::crc64
