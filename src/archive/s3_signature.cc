#include "archive/s3_signature.h"

#include <algorithm>
#include <ctime>

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/assert.h"
#include "base/text_encoding.h"

namespace offprint::archive {
namespace {

constexpr std::string_view kAlgorithm = "AWS4-HMAC-SHA256";

Bytes digest(const EVP_MD* kind, ByteView bytes) {
  Bytes hash(EVP_MAX_MD_SIZE);
  unsigned size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), hash.data(), &size, kind, nullptr) != 1) size = 0;
  hash.resize(size);
  return hash;
}

Bytes hmac(ByteView key, std::string_view text) {
  Bytes code(EVP_MAX_MD_SIZE);
  unsigned size = 0;
  ByteView bytes = as_bytes(text);
  OFFPRINT_ASSERT(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), bytes.data(),
                       bytes.size(), code.data(), &size) != nullptr);
  code.resize(size);
  return code;
}

bool is_unreserved(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_' || c == '.' || c == '~';
}

// Spaces around are dropped, and runs of them inside become one.
std::string trimmed(std::string_view value) {
  std::string text;
  for (char c : value) {
    if (c == '\t') c = ' ';
    if (c == ' ' && (text.empty() || text.back() == ' ')) continue;
    text += c;
  }
  if (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

Pairs sorted_headers(const SignedContent& content) {
  Pairs headers = content.headers;
  std::sort(headers.begin(), headers.end());
  return headers;
}

std::string signed_names(const SignedContent& content) {
  std::string names;
  for (const auto& [name, value] : sorted_headers(content)) {
    if (!names.empty()) names += ';';
    names += name;
  }
  return names;
}

}  // namespace

std::string uri_encode(std::string_view text, bool keep_slash) {
  std::string encoded;
  for (char c : text) {
    if (is_unreserved(c) || (c == '/' && keep_slash)) {
      encoded += c;
    } else {
      encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return encoded;
}

std::string uri_decode(std::string_view text, bool plus_is_space) {
  auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0) {
      c = static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else if (c == '+' && plus_is_space) {
      c = ' ';
    }
    decoded += c;
  }
  return decoded;
}

std::string query_text(Pairs query) {
  for (auto& [name, value] : query) {
    name = uri_encode(name, false);
    value = uri_encode(value, false);
  }
  std::sort(query.begin(), query.end());
  std::string text;
  for (const auto& [name, value] : query) {
    if (!text.empty()) text += '&';
    text += name + "=" + value;
  }
  return text;
}

std::string amz_time(std::int64_t unix_ms) {
  std::time_t seconds = static_cast<std::time_t>(unix_ms / 1000);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  return fmt::format("{:04}{:02}{:02}T{:02}{:02}{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

Bytes sha256(ByteView bytes) {
  Bytes hash = digest(EVP_sha256(), bytes);
  OFFPRINT_ASSERT(hash.size() == 32);
  return hash;
}

std::string sha256_hex(ByteView bytes) { return to_hex(sha256(bytes)); }

std::string base64(ByteView bytes) {
  std::string text;
  append_base64(text, bytes, Base64Padding::kPadded);
  return text;
}

std::string md5_base64(ByteView bytes) { return base64(digest(EVP_md5(), bytes)); }

std::string canonical_request(const SignedContent& content) {
  std::string text = fmt::format("{}\n{}\n{}\n", content.method, uri_encode(content.path, true),
                                 query_text(content.query));
  for (const auto& [name, value] : sorted_headers(content))
    text += name + ":" + trimmed(value) + "\n";
  return text + "\n" + signed_names(content) + "\n" + content.payload_hash;
}

std::string authorization(const SignedContent& content, const S3Credentials& credentials,
                          const SignatureScope& scope) {
  std::string day = scope.time.substr(0, 8);
  std::string place = fmt::format("{}/{}/{}/aws4_request", day, scope.region, scope.service);
  std::string to_sign = fmt::format("{}\n{}\n{}\n{}", kAlgorithm, scope.time, place,
                                    sha256_hex(as_bytes(canonical_request(content))));
  Bytes key = hmac(as_bytes("AWS4" + credentials.secret_key), day);
  key = hmac(key, scope.region);
  key = hmac(key, scope.service);
  key = hmac(key, "aws4_request");
  return fmt::format("{} Credential={}/{},SignedHeaders={},Signature={}", kAlgorithm,
                     credentials.access_key, place, signed_names(content),
                     to_hex(hmac(key, to_sign)));
}

}  // namespace offprint::archive
