#include "server/json_writer.h"

#include <charconv>
#include <cmath>

#include "base/text_encoding.h"

namespace offprint::server {

void append_json_string(std::string& to, std::string_view text) {
  offprint::append_json_string(to, text);
}

void append_integer(std::string& to, std::int64_t value) {
  char digits[24];
  auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  to.append(digits, end);
}

void append_unsigned(std::string& to, std::uint64_t value) {
  char digits[24];
  auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  to.append(digits, end);
}

void append_double(std::string& to, double value) {
  if (!std::isfinite(value)) {
    to += "null";
    return;
  }
  char digits[40];
  auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  std::string_view text(digits, end);
  to += text;
  if (text.find_first_of(".e") == std::string_view::npos) to += ".0";
}

void append_base64(std::string& to, ByteView bytes, Base64Padding padding) {
  offprint::append_base64(to, bytes,
                          padding == Base64Padding::kPadded ? offprint::Base64Padding::kPadded
                                                            : offprint::Base64Padding::kNone);
}

bool decode_base64(std::string_view text, Bytes& to) { return offprint::decode_base64(text, to); }

}  // namespace offprint::server
