#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"

// JSON as text, written straight to the end of a string.
namespace offprint::server {

// Quoted and escaped. Bytes that are not UTF-8 become U+FFFD, so the result is always valid JSON;
// "/" is not escaped.
void append_json_string(std::string& to, std::string_view text);
void append_integer(std::string& to, std::int64_t value);
void append_unsigned(std::string& to, std::uint64_t value);
// The shortest text that reads back as the same double, always with a point or an exponent ("1.0");
// NaN and the infinities are null.
void append_double(std::string& to, double value);

// RFC 4648, standard alphabet. Hrana's clients want it without padding, most others with it.
enum class Base64Padding { kNone, kPadded };
void append_base64(std::string& to, ByteView bytes, Base64Padding padding = Base64Padding::kNone);
// The standard or the URL-safe alphabet, with or without padding; false (and `to` unspecified) for
// anything else.
bool decode_base64(std::string_view text, Bytes& to);

}  // namespace offprint::server
