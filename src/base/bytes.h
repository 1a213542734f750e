#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace offprint {

using Bytes = std::vector<std::uint8_t>;
using ByteView = std::span<const std::uint8_t>;

// Unsigned integers at `from`/`to`, most significant byte first. No alignment needed.
template <std::unsigned_integral T>
T load_be(const std::uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  if constexpr (std::endian::native == std::endian::little && sizeof(T) > 1) {
    if constexpr (sizeof(T) == 2) value = __builtin_bswap16(value);
    if constexpr (sizeof(T) == 4) value = __builtin_bswap32(value);
    if constexpr (sizeof(T) == 8) value = __builtin_bswap64(value);
  }
  return value;
}
template <std::unsigned_integral T>
void store_be(std::uint8_t* to, T value) {
  if constexpr (std::endian::native == std::endian::little && sizeof(T) > 1) {
    if constexpr (sizeof(T) == 2) value = __builtin_bswap16(value);
    if constexpr (sizeof(T) == 4) value = __builtin_bswap32(value);
    if constexpr (sizeof(T) == 8) value = __builtin_bswap64(value);
  }
  std::memcpy(to, &value, sizeof value);
}
template <std::unsigned_integral T>
void append_be(Bytes& to, T value) {
  std::uint8_t raw[sizeof(T)];
  store_be<T>(raw, value);
  to.insert(to.end(), raw, raw + sizeof raw);
}
inline void append(Bytes& to, ByteView bytes) { to.insert(to.end(), bytes.begin(), bytes.end()); }

inline ByteView as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
inline std::string_view as_text(ByteView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Lower-case hexadecimal, two digits a byte.
std::string to_hex(ByteView bytes);
// Its inverse; nothing for an odd length or another character (upper case is refused: texts are
// fixed form).
std::optional<Bytes> from_hex(std::string_view text);
// Exactly `digits` lower-case hexadecimal digits as a number.
std::optional<std::uint64_t> parse_hex(std::string_view text, std::size_t digits);

}  // namespace offprint
