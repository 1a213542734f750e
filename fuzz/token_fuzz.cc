// Feeds arbitrary bytes to everything that reads tokens: as a token nothing is ever taken, for
// nobody can sign; as claims what is taken grants something, and only in forms that are known; as
// a key file it is one or is not.
#include <cstdint>
#include <string>

#include "base/assert.h"
#include "server/access.h"
#include "server/token.h"

namespace {

using namespace offprint::server;  // NOLINT: the whole program is about it

void check_claims(const std::string& text) {
  auto claims = parse_claims(text);
  if (!claims) {
    OFFPRINT_ASSERT(claims.error().code() == offprint::Code::kUnauthorized);
    return;
  }
  OFFPRINT_ASSERT(!claims->grants.empty());
  for (const Grant& grant : claims->grants) {
    OFFPRINT_ASSERT(is_grant_pattern(grant.pattern));
    OFFPRINT_ASSERT(!grant.verbs.empty() || grant.sql.has_table_rules());
    OFFPRINT_ASSERT(grant.verbs.has(grant.sql.everywhere));
  }
  Access access(*std::move(claims), nullptr);
  auto name = offprint::database::DatabaseName::parse("shop/orders");
  if (!access.knows(*name)) OFFPRINT_ASSERT(access.sql_rights(*name)->everywhere.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const SigningKey ed25519 = SigningKey::generate("EdDSA").value();
  static const SigningKey p256 = SigningKey::generate("ES256").value();
  static const auto keys =
      VerifyingKey::parse_all(ed25519.public_pem() + p256.public_pem()).value();
  std::string text(reinterpret_cast<const char*>(data), size);
  OFFPRINT_ASSERT(!verify_token(text, {keys, "", 0}));
  check_claims(text);
  if (auto payload = token_payload(text)) check_claims(*payload);
  (void)VerifyingKey::parse_all(text);
  if (auto bytes = decode_base64url(text)) OFFPRINT_ASSERT(encode_base64url(*bytes) == text);
  return 0;
}
