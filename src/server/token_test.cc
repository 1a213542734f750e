// Which tokens are taken, and what they grant.
#include "server/token.h"

#include <gmock/gmock.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "server/access.h"
#include "server/token_testing.h"

namespace offprint::server::testing {
namespace {

using database::Verb;
using ::testing::HasSubstr;

std::string part(std::string_view text) { return encode_base64url(as_bytes(text)); }

// A token whose header is chosen freely, signed as `key` signs.
std::string with_header(const SigningKey& key, const std::string& header,
                        const std::string& payload) {
  std::string text = part(header) + "." + part(payload);
  return text + "." + encode_base64url(key.sign(text).value());
}

std::string payload_of(std::int64_t expires_in_s = 600, const std::string& more = "") {
  return fmt::format(R"({{"exp":{},"acl":[{{"db":"shop/orders","a":["data_read"]}}]{}}})",
                     seconds_now() + expires_in_s, more);
}

class TokenTest : public ::testing::TestWithParam<const char*> {
 protected:
  Result<TokenClaims> verify(const std::string& token, const std::string& audience = "") {
    return verify_token(token, {keys, audience, seconds_now()});
  }
  void expect_refused(const std::string& token, const std::string& why,
                      const std::string& audience = "") {
    Result<TokenClaims> claims = verify(token, audience);
    ASSERT_FALSE(claims) << token;
    EXPECT_EQ(claims.error().code(), Code::kUnauthorized);
    EXPECT_THAT(claims.error().message(), HasSubstr(why));
  }
  Issuer issuer{GetParam()};
  std::vector<VerifyingKey> keys = issuer.keys();
};
INSTANTIATE_TEST_SUITE_P(Keys, TokenTest, ::testing::Values("EdDSA", "ES256"));

TEST_P(TokenTest, ATokenOfOursIsTaken) {
  Result<TokenClaims> claims = verify(issuer.sign(payload_of()));
  ASSERT_TRUE(claims) << claims.error().message();
  EXPECT_EQ(claims->grants.at(0).pattern, "shop/orders");
  EXPECT_TRUE(claims->grants[0].verbs.has(Verb::kDataRead));
}

TEST_P(TokenTest, SeveralKeysMayBeInUse) {
  Issuer other(GetParam() == std::string("EdDSA") ? "ES256" : "EdDSA");
  Issuer third(GetParam());
  for (const VerifyingKey& key : other.keys()) keys.push_back(key);
  for (const VerifyingKey& key : third.keys()) keys.push_back(key);
  for (const Issuer* one : {&issuer, &other, &third}) EXPECT_TRUE(verify(one->sign(payload_of())));
  expect_refused(Issuer(GetParam()).sign(payload_of()), "not signed with a key");
}

// The header says how it wants to be verified; the key decides.
TEST_P(TokenTest, TheHeaderChoosesNothing) {
  std::string payload = payload_of();
  for (const char* algorithm : {"none", "None", "NONE", "nOnE", "", "HS256", "RS256", "ES384"}) {
    std::string header = fmt::format(R"({{"alg":"{}","typ":"JWT"}})", algorithm);
    expect_refused(part(header) + "." + part(payload) + ".", "not signed");
    expect_refused(with_header(issuer.key, header, payload), "not signed");
  }
  expect_refused(with_header(issuer.key, R"({"typ":"JWT"})", payload), "not signed");
  std::string other = GetParam() == std::string("EdDSA") ? "ES256" : "EdDSA";
  expect_refused(with_header(issuer.key, R"({"alg":")" + other + "\"}", payload), "not signed");
  std::string algorithm = fmt::format(R"("alg":"{}")", GetParam());
  expect_refused(with_header(issuer.key, "{" + algorithm + R"(,"crit":["exp"]})", payload),
                 "not known here");
  expect_refused(with_header(issuer.key, "{" + algorithm + R"(,"b64":false})", payload),
                 "not known here");
  expect_refused(with_header(issuer.key, "{" + algorithm + R"(,"alg":"none"})", payload), "twice");
  expect_refused(with_header(issuer.key, "{" + algorithm + R"(,"typ":"JOSE"})", payload),
                 "something else");
  // A key that a stranger brings along is not looked at.
  Issuer stranger(GetParam());
  expect_refused(
      with_header(stranger.key, "{" + algorithm + R"(,"jwk":{"kty":"OKP"},"jku":"http://x"})",
                  payload),
      "not signed");
}

// The classic confusion: the public key, which everybody has, taken for a shared secret.
TEST_P(TokenTest, APublicKeyIsNoSharedSecret) {
  std::string text = part(R"({"alg":"HS256","typ":"JWT"})") + "." + part(payload_of());
  std::string secret = issuer.key.public_pem();
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest, &size);
  expect_refused(text + "." + encode_base64url({digest, size}), "not signed");
}

TEST_P(TokenTest, NothingCanBeChangedOrAdded) {
  std::string token = issuer.sign(payload_of());
  for (std::size_t i = 0; i < token.size(); ++i) {
    std::string changed = token;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    EXPECT_FALSE(verify(changed)) << i;
  }
  for (const char* more : {"A", "=", "==", ".", " ", "\n", ".e30", "AAAA"}) {
    EXPECT_FALSE(verify(token + more)) << more;
    EXPECT_FALSE(verify(more + token)) << more;
  }
  for (std::size_t size = 0; size < token.size(); ++size)
    EXPECT_FALSE(verify(token.substr(0, size))) << size;
  expect_refused(std::string(9000, 'A'), "too long");
  // Another signature's halves: r and s are 64 bytes, and DER is not taken.
  std::size_t dot = token.rfind('.');
  for (std::size_t size : {0u, 1u, 63u, 65u, 70u, 128u}) {
    expect_refused(token.substr(0, dot + 1) + encode_base64url(Bytes(size, 0)), "not signed");
  }
  for (std::uint8_t fill : {std::uint8_t{0}, std::uint8_t{255}})
    expect_refused(token.substr(0, dot + 1) + encode_base64url(Bytes(64, fill)), "not signed");
}

TEST_P(TokenTest, TimesAndAudienceAreHonoured) {
  expect_refused(issuer.sign(payload_of(0)), "expired");
  expect_refused(issuer.sign(payload_of(-100)), "expired");
  expect_refused(issuer.sign(R"({"acl":[{"db":"*","a":["data_read"]}]})"), "no 'exp'");
  for (const char* bad : {"\"soon\"", "null", "-1", "1e400", "1e15", "true", "[1]"}) {
    expect_refused(issuer.sign(fmt::format(R"({{"exp":{},"a":"ro"}})", bad)), "");
  }
  expect_refused(issuer.sign(payload_of(600, fmt::format(R"(,"nbf":{})", seconds_now() + 60))),
                 "not valid yet");
  EXPECT_TRUE(verify(issuer.sign(payload_of(600, fmt::format(R"(,"nbf":{})", seconds_now() - 1)))));
  expect_refused(issuer.sign(payload_of()), "audience", "here");
  expect_refused(issuer.sign(payload_of(600, R"(,"aud":"there")")), "audience", "here");
  expect_refused(issuer.sign(payload_of(600, R"(,"aud":["there","heres"])")), "audience", "here");
  EXPECT_TRUE(verify(issuer.sign(payload_of(600, R"(,"aud":"here")")), "here"));
  EXPECT_TRUE(verify(issuer.sign(payload_of(600, R"(,"aud":["there","here"])")), "here"));
}

TEST(Claims, WhatIsNotKnownIsRefused) {
  auto refused = [](const std::string& claims) {
    Result<TokenClaims> parsed = parse_claims(R"({"exp":4000000000,)" + claims + "}");
    return !parsed && parsed.error().code() == Code::kUnauthorized;
  };
  EXPECT_TRUE(refused(R"("acl":[])"));
  EXPECT_TRUE(refused(R"("sub":"somebody")"));
  EXPECT_TRUE(refused(R"("acl":[{"db":"*","a":["data_read","fly"]}])"));
  EXPECT_TRUE(refused(R"("acl":[{"db":"*","a":["DATA_READ"]}])"));
  EXPECT_TRUE(refused(R"("acl":[{"db":"*","a":"data_read"}])"));
  EXPECT_TRUE(refused(R"("acl":[{"db":"*","a":[]}])"));
  EXPECT_TRUE(refused(R"("acl":[{"db":"*"}])"));
  EXPECT_TRUE(refused(R"("acl":[{"a":["data_read"]}])"));
  EXPECT_TRUE(refused(R"("acl":[{"db":"*","a":["data_read"],"except":["b"]}])"));
  EXPECT_TRUE(refused(R"("acl":[{"db":"*","a":["data_read"]}],"acl":[])"));
  EXPECT_TRUE(refused(R"("acl":[{"db":"*","db":"a","a":["data_read"]}])"));
  EXPECT_TRUE(refused(R"("acl":[{"contract":"orders@v2","a":["subscribe"]}])"));
  EXPECT_TRUE(refused(R"("acl":[{"db":"a","t":{"x":["admin"]}}])"));
  EXPECT_TRUE(refused(R"("acl":[{"db":"a","t":{"x":["data_read"],"X":["data_add"]}}])"));
  for (const char* pattern :
       {"", "**", "a*", "*/a", "a/b/c", "a/b*", "A/*", "../*", "a//*", "/*", "query/*", "*/*"}) {
    EXPECT_TRUE(refused(fmt::format(R"("acl":[{{"db":"{}","a":["data_read"]}}])", pattern)))
        << pattern;
  }
  EXPECT_TRUE(refused(R"("a":"ro","scope":"all")"));
  EXPECT_TRUE(refused(R"("a":"admin")"));
  EXPECT_TRUE(refused(R"("id":"*")"));
  EXPECT_TRUE(refused(R"("p":{})"));
  EXPECT_TRUE(refused(R"("p":{"rw":{"ns":[]}})"));
  EXPECT_TRUE(refused(R"("p":{"rw":{"ns":["*"]}})"));
  EXPECT_TRUE(refused(R"("p":{"rw":{"tags":["x"]}})"));
  EXPECT_TRUE(refused(R"("p":{"god":{"ns":["a"]}})"));
  EXPECT_FALSE(parse_claims("[]"));
  EXPECT_FALSE(parse_claims("{"));
  EXPECT_FALSE(parse_claims(""));
}

TEST(Claims, GrantsAreWhatTheySay) {
  auto access = [](const std::string& claims) {
    Result<TokenClaims> parsed = parse_claims(R"({"exp":4000000000,)" + claims + "}");
    EXPECT_TRUE(parsed) << parsed.error().message();
    return Access(*std::move(parsed), nullptr);
  };
  auto name = [](const char* text) { return *database::DatabaseName::parse(text); };
  Access ours = access(R"("acl":[{"db":"shop/*","a":["data_read","admin"]},)"
                       R"({"db":"shop/orders","t":{"Orders":["data_add"],"*":["data_update"]}}])");
  EXPECT_TRUE(ours.allows(name("shop/orders"), Verb::kAdmin));
  EXPECT_TRUE(ours.allows(name("shop/other"), Verb::kDataRead));
  EXPECT_FALSE(ours.allows(name("shop"), Verb::kDataRead));
  EXPECT_FALSE(ours.knows(name("shopping")));
  EXPECT_FALSE(ours.knows(name("bank")));
  EXPECT_FALSE(ours.allows_everywhere(Verb::kAdmin));
  auto rights = ours.sql_rights(name("shop/orders"));
  EXPECT_EQ(rights->on_table("orders"), Verb::kDataRead | Verb::kDataAdd);
  EXPECT_EQ(rights->on_table("x"), Verb::kDataRead | Verb::kDataUpdate);
  EXPECT_TRUE(ours.sql_rights(name("bank"))->everywhere.empty());

  Access read_only = access(R"("a":"ro","id":"shop")");
  EXPECT_TRUE(read_only.allows(name("shop"), Verb::kDataRead | Verb::kSubscribe));
  EXPECT_FALSE(read_only.allows(name("shop"), Verb::kDataAdd));
  EXPECT_FALSE(read_only.knows(name("bank")));
  Access whole = access(R"("a":"rw")");
  EXPECT_EQ(whole.sql_rights(name("bank")), nullptr);
  EXPECT_FALSE(whole.allows(name("bank"), Verb::kAdmin));
  Access listed = access(R"("p":{"ro":{"ns":["a"]},"rw":{"ns":["b","c"]}})");
  EXPECT_TRUE(listed.allows(name("b"), database::kSqlVerbs));
  EXPECT_TRUE(listed.allows(name("a"), Verb::kDataRead));
  EXPECT_FALSE(listed.allows(name("a"), Verb::kDataAdd));
  EXPECT_FALSE(listed.knows(name("d")));
}

TEST(TokenKeys, AreReadInEveryForm) {
  Issuer ed;
  Issuer ec("ES256");
  Result<std::vector<VerifyingKey>> both =
      VerifyingKey::parse_all(ed.key.public_pem() + ec.key.public_pem());
  ASSERT_TRUE(both);
  ASSERT_EQ(both->size(), 2u);
  EXPECT_EQ((*both)[0].algorithm(), "EdDSA");
  EXPECT_EQ((*both)[1].algorithm(), "ES256");
  // RFC 8037, appendix A: this key made this token.
  const std::string x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
  const std::string token =
      "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
      "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
  std::size_t dot = token.rfind('.');
  for (const std::string& text : {x, x + "\n", R"({"kty":"OKP","crv":"Ed25519","x":")" + x + "\"}",
                                  R"({"keys":[{"kty":"OKP","crv":"Ed25519","x":")" + x + "\"}]}"}) {
    auto keys = VerifyingKey::parse_all(text);
    ASSERT_TRUE(keys) << text;
    EXPECT_TRUE(keys->at(0).verify(token.substr(0, dot), *decode_base64url(token.substr(dot + 1))));
  }
  // RFC 7515, appendix A.3.
  auto p256 = VerifyingKey::parse_all(
      R"({"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",)"
      R"("y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})");
  ASSERT_TRUE(p256);
  EXPECT_TRUE(p256->at(0).verify(
      "eyJhbGciOiJFUzI1NiJ9."
      "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVl"
      "fQ",
      *decode_base64url(
          "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqP"
          "P3-Kg6NU1Q")));
  for (const std::string& text :
       {std::string(), std::string("nonsense!"), std::string("AAAA"), ed.key.private_pem(),
        std::string(R"({"kty":"RSA","n":"AQAB","e":"AQAB"})"),
        std::string(
            R"({"kty":"EC","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",)"
            R"("y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"})"),  // not on the curve
        std::string("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")}) {
    EXPECT_FALSE(VerifyingKey::parse_all(text)) << text;
  }
}

TEST(Base64Url, IsStrict) {
  for (std::size_t size = 0; size < 70; ++size) {
    Bytes bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::uint8_t>(i * 37 + size);
    EXPECT_EQ(decode_base64url(encode_base64url(bytes)), bytes);
  }
  for (const char* bad : {"A", "AAAAA", "AA==", "AB", "AAB", "A+AA", "A/AA", "AA A", "AAA\n", "Ä"})
    EXPECT_FALSE(decode_base64url(bad)) << bad;
}

TEST(Authenticator, RemembersTokensUntilTheyExpire) {
  Issuer issuer;
  Authenticator::Options options;
  options.keys = issuer.keys();
  options.cached_max = 3;
  Authenticator authenticator(std::move(options), nullptr);
  std::string token = issuer.acl(R"({"db":"a","a":["data_read"]})");
  auto first = authenticator.authenticate(token);
  ASSERT_TRUE(first);
  EXPECT_EQ(authenticator.authenticate_field("bearer  " + token)->get(), first->get());
  EXPECT_EQ(authenticator.cached_count(), 1u);
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(authenticator.authenticate(
        issuer.acl(R"({"db":"a","a":["data_read"]})", fmt::format(R"(,"jti":"{}")", i))));
  }
  EXPECT_EQ(authenticator.cached_count(), 3u);
  EXPECT_FALSE(authenticator.authenticate("a.b.c"));
  EXPECT_EQ(authenticator.cached_count(), 3u);
  for (const char* field : {"", "Bearer", "Bearer ", "Basic YTpi", "Token x"})
    EXPECT_FALSE(authenticator.authenticate_field(field)) << field;
  // One that is remembered expires all the same.
  std::string brief = issuer.sign(
      fmt::format(R"({{"exp":{},"acl":[{{"db":"a","a":["data_read"]}}]}})", seconds_now() + 2));
  auto access = authenticator.authenticate(brief);
  ASSERT_TRUE(access);
  EXPECT_TRUE((*access)->counts(seconds_now()));
  EXPECT_FALSE((*access)->counts((*access)->expires_s()));
}

}  // namespace
}  // namespace offprint::server::testing
