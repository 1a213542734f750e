#include "server/signed_target.h"

#include <charconv>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/assert.h"

namespace offprint::server {
namespace {

constexpr std::string_view kExpires = "expires=";
constexpr std::string_view kSignature = "&signature=";

std::string hex_tag(const StreamKey& key, std::string_view text) {
  std::uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  auto* done = HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), as_bytes(text).data(),
                    text.size(), digest, &size);
  OFFPRINT_ASSERT(done != nullptr);
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string hex;
  for (unsigned i = 0; i < size; ++i) {
    hex += kDigits[digest[i] >> 4];
    hex += kDigits[digest[i] & 15];
  }
  return hex;
}

}  // namespace

std::string sign_target(const StreamKey& key, std::string target, std::int64_t expires_at_ms) {
  target += target.find('?') == std::string::npos ? '?' : '&';
  target += kExpires;
  target += std::to_string(expires_at_ms);
  std::string tag = hex_tag(key, target);
  target += kSignature;
  return target + tag;
}

bool is_signed_target(const StreamKey& key, std::string_view target, std::int64_t now_ms) {
  std::size_t at = target.rfind(kSignature);
  if (at == std::string_view::npos) return false;
  std::string_view text = target.substr(0, at);
  std::string_view tag = target.substr(at + kSignature.size());
  std::string expected = hex_tag(key, text);
  if (tag.size() != expected.size() ||
      CRYPTO_memcmp(tag.data(), expected.data(), expected.size()) != 0) {
    return false;
  }
  std::string_view digits = text.substr(text.rfind(kExpires) + kExpires.size());
  std::int64_t expires = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), expires);
  return now_ms < expires;
}

std::string absolute_url(const HttpRequest& request, std::string_view target) {
  bool tls = equal_ignoring_case(request.header("X-Forwarded-Proto"), "https");
  std::string url = tls ? "https://" : "http://";
  url += request.header("Host");
  url += target;
  return url;
}

}  // namespace offprint::server
