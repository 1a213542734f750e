#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "database/rights.h"
#include "server/token_key.h"

// JSON Web Tokens, as this server takes them. docs/protocol/tokens.md.
namespace offprint::server {

inline constexpr std::size_t kTokenSizeMax = 8 << 10;
inline constexpr std::size_t kTokenIdMax = 256;  // characters of a jti

// What a token allows on the databases of one pattern.
struct Grant {
  std::string pattern;  // "*", "shop/*" or a name
  database::SqlRights sql;
  database::Verbs verbs;  // all of `sql.everywhere`, and those that are no SQL

  bool matches(std::string_view database) const;
};

struct TokenClaims {
  std::string id;       // jti; empty: it cannot be revoked alone
  std::string issuer;   // iss
  std::string subject;  // sub
  std::vector<std::string> audience;
  std::int64_t expires_s = 0;     // seconds since the Unix epoch, as the following
  std::int64_t not_before_s = 0;  // 0: at once
  std::int64_t issued_s = 0;      // 0: not told
  std::vector<Grant> grants;      // never empty
};

// "*", "shop/*" or the form of a name.
bool is_grant_pattern(std::string_view text);

// The claims of a payload. kUnauthorized: it is not one of ours, no `exp`, an unknown claim or
// verb, no grant.
Result<TokenClaims> parse_claims(std::string payload);

struct TokenRules {
  std::span<const VerifyingKey> keys;
  std::string audience;    // empty: not looked at
  std::int64_t now_s = 0;  // seconds since the Unix epoch
};
// Signature first, then the claims. kUnauthorized with the reason.
Result<TokenClaims> verify_token(std::string_view token, const TokenRules& rules);

// A signed token with this payload (a JSON object).
Result<std::string> sign_token(const SigningKey& key, std::string_view payload);
// The payload of a token, unverified: for showing it to the one who has it.
Result<std::string> token_payload(std::string_view token);

}  // namespace offprint::server
