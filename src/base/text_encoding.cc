#include "base/text_encoding.h"

#include <array>
#include <cstring>

namespace offprint {
namespace {

// True when none of the 8 bytes is a control byte, a quote, a backslash or not ASCII.
bool plain_bytes(std::uint64_t word) {
  constexpr std::uint64_t kOnes = 0x0101010101010101u;
  constexpr std::uint64_t kHigh = 0x8080808080808080u;
  auto has_zero = [](std::uint64_t x) { return (x - kOnes) & ~x & kHigh; };
  std::uint64_t below_space = (word - kOnes * 0x20) & ~word & kHigh;
  return ((word & kHigh) | below_space | has_zero(word ^ (kOnes * '"')) |
          has_zero(word ^ (kOnes * '\\'))) == 0;
}

std::size_t plain_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at + 8 <= text.size()) {
    std::uint64_t word;
    std::memcpy(&word, text.data() + at, 8);
    if (!plain_bytes(word)) break;
    at += 8;
  }
  while (at < text.size()) {
    auto byte = static_cast<unsigned char>(text[at]);
    if (byte < 0x20 || byte >= 0x80 || byte == '"' || byte == '\\') break;
    ++at;
  }
  return at;
}

// Length of the well-formed UTF-8 sequence at the start of `text` (not ASCII), 0 when there is none
// (RFC 3629).
std::size_t utf8_sequence(std::string_view text) {
  auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  unsigned first = byte(0);
  std::size_t length = first >= 0xc2 && first <= 0xdf   ? 2
                       : first >= 0xe0 && first <= 0xef ? 3
                       : first >= 0xf0 && first <= 0xf4 ? 4
                                                        : 0;
  if (length == 0 || text.size() < length) return 0;
  unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  if (byte(1) < low || byte(1) > high) return 0;
  for (std::size_t i = 2; i < length; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xbf) return 0;
  }
  return length;
}

void append_escape(std::string& to, unsigned char byte) {
  static constexpr char kDigits[] = "0123456789abcdef";
  switch (byte) {
    case '"':
      to += "\\\"";
      return;
    case '\\':
      to += "\\\\";
      return;
    case '\n':
      to += "\\n";
      return;
    case '\r':
      to += "\\r";
      return;
    case '\t':
      to += "\\t";
      return;
    case '\b':
      to += "\\b";
      return;
    case '\f':
      to += "\\f";
      return;
    default:
      to += "\\u00";
      to += kDigits[byte >> 4];
      to += kDigits[byte & 15];
  }
}

constexpr char kBase64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr std::array<std::int8_t, 256> base64_values() {
  std::array<std::int8_t, 256> values{};
  values.fill(-1);
  for (int i = 0; i < 64; ++i)
    values[static_cast<unsigned char>(kBase64[i])] = static_cast<std::int8_t>(i);
  values['-'] = 62;
  values['_'] = 63;
  return values;
}

}  // namespace

void append_json_string(std::string& to, std::string_view text) {
  to.reserve(to.size() + text.size() + 2);
  to += '"';
  while (!text.empty()) {
    std::size_t plain = plain_prefix(text);
    to.append(text.data(), plain);
    text.remove_prefix(plain);
    if (text.empty()) break;
    auto byte = static_cast<unsigned char>(text[0]);
    if (byte < 0x80) {
      append_escape(to, byte);
      text.remove_prefix(1);
    } else if (std::size_t length = utf8_sequence(text); length != 0) {
      to.append(text.data(), length);
      text.remove_prefix(length);
    } else {
      to += "\xef\xbf\xbd";
      text.remove_prefix(1);
    }
  }
  to += '"';
}

void append_base64(std::string& to, ByteView bytes, Base64Padding padding) {
  to.reserve(to.size() + (bytes.size() * 4 + 2) / 3);
  std::size_t at = 0;
  for (; at + 3 <= bytes.size(); at += 3) {
    unsigned group = static_cast<unsigned>(bytes[at]) << 16 |
                     static_cast<unsigned>(bytes[at + 1]) << 8 | bytes[at + 2];
    char four[4] = {kBase64[group >> 18], kBase64[group >> 12 & 63], kBase64[group >> 6 & 63],
                    kBase64[group & 63]};
    to.append(four, 4);
  }
  std::size_t left = bytes.size() - at;
  if (left == 0) return;
  unsigned group = static_cast<unsigned>(bytes[at]) << 16;
  if (left == 2) group |= static_cast<unsigned>(bytes[at + 1]) << 8;
  to += kBase64[group >> 18];
  to += kBase64[group >> 12 & 63];
  if (left == 2) to += kBase64[group >> 6 & 63];
  if (padding == Base64Padding::kPadded) to.append(3 - left, '=');
}

bool decode_base64(std::string_view text, Bytes& to) {
  static constexpr std::array<std::int8_t, 256> kValues = base64_values();
  to.clear();
  if (text.ends_with('=')) {
    if (text.size() % 4 != 0) return false;
    text.remove_suffix(text[text.size() - 2] == '=' ? 2 : 1);
  }
  if (text.size() % 4 == 1) return false;
  to.reserve(text.size() * 3 / 4);
  std::uint32_t group = 0;
  int bits = 0;
  for (char c : text) {
    int value = kValues[static_cast<unsigned char>(c)];
    if (value < 0) return false;
    group = group << 6 | static_cast<std::uint32_t>(value);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      to.push_back(static_cast<std::uint8_t>(group >> bits & 0xff));
    }
  }
  return (group & ((1u << bits) - 1)) == 0;  // leftover bits must be zero: one text for each value
}

}  // namespace offprint
