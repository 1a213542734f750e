#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"

// Texts and bytes as they stand in JSON, appended to a string.
namespace offprint {

// Quoted and escaped. Bytes that are not UTF-8 become U+FFFD, so the result is always valid JSON;
// "/" is not escaped.
void append_json_string(std::string& to, std::string_view text);

// RFC 4648, standard alphabet.
enum class Base64Padding { kNone, kPadded };
void append_base64(std::string& to, ByteView bytes, Base64Padding padding);
// The standard or the URL-safe alphabet, with or without padding; false (and `to` unspecified) for
// anything else.
bool decode_base64(std::string_view text, Bytes& to);

}  // namespace offprint
