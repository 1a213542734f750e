#include "server/authenticator.h"

#include <cstring>
#include <fstream>
#include <sstream>

#include <fmt/format.h>
#include <openssl/evp.h>

#include "base/clock.h"
#include "server/http_message.h"

namespace offprint::server {
namespace {

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

// Looking up the algorithm costs more than a token's hash: each thread does it once.
void sha256(std::string_view text, std::array<std::uint8_t, 32>& digest) {
  static const EVP_MD* const algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  thread_local const std::unique_ptr<EVP_MD_CTX, FreeContext> context(EVP_MD_CTX_new());
  bool done = EVP_DigestInit_ex2(context.get(), algorithm, nullptr) == 1 &&
              EVP_DigestUpdate(context.get(), text.data(), text.size()) == 1 &&
              EVP_DigestFinal_ex(context.get(), digest.data(), nullptr) == 1;
  if (!done) throw std::bad_alloc();
}

std::int64_t now_s() { return unix_time_ms() / 1000; }

std::unexpected<Error> no_longer() {
  return fail(Code::kUnauthorized, "TOKEN_EXPIRED: the token has expired or was revoked");
}

}  // namespace

Result<std::shared_ptr<const Access>> Authenticator::authenticate_field(
    std::string_view authorization) {
  constexpr std::string_view kScheme = "Bearer ";
  if (authorization.empty()) {
    refused_.fetch_add(1, std::memory_order_relaxed);
    return fail(Code::kUnauthorized,
                "TOKEN_MISSING: this server asks for a token: Authorization: Bearer …");
  }
  if (authorization.size() < kScheme.size() ||
      !equal_ignoring_case(authorization.substr(0, kScheme.size()), kScheme)) {
    refused_.fetch_add(1, std::memory_order_relaxed);
    return fail(Code::kUnauthorized, "TOKEN_INVALID: the only scheme here is Bearer");
  }
  std::string_view token = authorization.substr(kScheme.size());
  while (token.starts_with(' ')) token.remove_prefix(1);
  return authenticate(token);
}

Result<std::shared_ptr<const Access>> Authenticator::authenticate(std::string_view token) {
  auto access = look_up(token);
  if (!access) refused_.fetch_add(1, std::memory_order_relaxed);
  return access;
}

Result<std::shared_ptr<const Access>> Authenticator::look_up(std::string_view token) {
  Digest digest;
  if (token.size() > kTokenSizeMax)
    return fail(Code::kUnauthorized, "TOKEN_INVALID: it is too long");
  sha256(token, digest);
  std::int64_t now = now_s();
  if (std::shared_ptr<const Access> known = find(digest)) {
    if (!known->counts(now)) return no_longer();
    return known;
  }
  OFFPRINT_TRY_ASSIGN(TokenClaims claims,
                      verify_token(token, {options_.keys, options_.audience, now}));
  auto access = std::make_shared<const Access>(std::move(claims), revocations_);
  if (!access->counts(now)) return no_longer();
  keep(digest, access);
  return access;
}

std::size_t Authenticator::DigestHash::operator()(const Digest& digest) const {
  std::size_t hash;
  std::memcpy(&hash, digest.data(), sizeof hash);
  return hash;
}

std::shared_ptr<const Access> Authenticator::find(const Digest& digest) {
  std::lock_guard lock(mutex_);
  auto found = by_digest_.find(digest);
  if (found == by_digest_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->access;
}

void Authenticator::keep(const Digest& digest, std::shared_ptr<const Access> access) {
  std::lock_guard lock(mutex_);
  if (by_digest_.contains(digest)) return;
  entries_.push_front({digest, std::move(access)});
  by_digest_.emplace(digest, entries_.begin());
  if (entries_.size() <= options_.cached_max) return;
  by_digest_.erase(entries_.back().digest);
  entries_.pop_back();
}

std::size_t Authenticator::cached_count() const {
  std::lock_guard lock(mutex_);
  return entries_.size();
}

Result<std::vector<VerifyingKey>> load_verifying_keys(const std::vector<std::string>& paths) {
  std::vector<VerifyingKey> keys;
  for (const std::string& path : paths) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    if (!file || !(text << file.rdbuf()))
      return fail(Code::kInvalid, fmt::format("key file {}: it cannot be read", path));
    Result<std::vector<VerifyingKey>> found = VerifyingKey::parse_all(text.str());
    if (!found) return fail(found.error().with_context("key file " + path));
    keys.insert(keys.end(), found->begin(), found->end());
  }
  return keys;
}

}  // namespace offprint::server
