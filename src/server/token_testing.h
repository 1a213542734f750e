#pragma once

#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/clock.h"
#include "server/authenticator.h"
#include "server/revocations.h"
#include "server/store_testing.h"
#include "server/token.h"

// For tests: keys, tokens, and a server that asks for them.
namespace offprint::server::testing {

inline std::int64_t seconds_now() { return unix_time_ms() / 1000; }

struct Issuer {
  explicit Issuer(std::string_view algorithm = "EdDSA")
      : key(SigningKey::generate(algorithm).value()) {}

  std::vector<VerifyingKey> keys() const {
    return VerifyingKey::parse_all(key.public_pem()).value();
  }
  std::string sign(const std::string& payload) const { return sign_token(key, payload).value(); }
  // With a list of grants; `more` are further claims, each with a comma before it.
  std::string acl(const std::string& grants, const std::string& more = "") const {
    return sign(fmt::format(R"({{"iat":{},"exp":{},"acl":[{}]{}}})", seconds_now(),
                            seconds_now() + 600, grants, more));
  }

  SigningKey key;
};

inline constexpr const char* kAllVerbs =
    R"(["data_read","data_add","data_update","data_delete","schema_add","schema_update",)"
    R"("schema_delete","subscribe","snapshot","admin","metrics"])";

class TokenRoutesTest : public RoutesTest {
 protected:
  void SetUp() override {
    RoutesTest::SetUp();
    ask_for_tokens();
    create("shop/orders");
    create("bank/accounts");
    admin = issuer.acl(fmt::format(R"({{"db":"*","a":{}}})", kAllVerbs));
    shop = issuer.acl(fmt::format(R"({{"db":"shop/*","a":{}}})", kAllVerbs));
  }
  void TearDown() override {
    service->authenticator = nullptr;
    authenticator.reset();
    revocations.reset();
    RoutesTest::TearDown();
  }
  void ask_for_tokens() {
    auto loaded = Revocations::load(*store);
    ASSERT_TRUE(loaded) << loaded.error().message();
    revocations = *std::move(loaded);
    Authenticator::Options wanted;
    wanted.keys = issuer.keys();
    authenticator = std::make_unique<Authenticator>(std::move(wanted), revocations.get());
    service->authenticator = authenticator.get();
    service->revocations = revocations.get();
  }
  Response ask_as(const std::string& token, const std::string& method, const std::string& target,
                  const std::string& body = {}, const std::string& fields = {}) {
    return ask(method, target, body, "Authorization: Bearer " + token + "\r\n" + fields);
  }
  Response sql_as(const std::string& token, const std::string& name, const std::string& sql) {
    return ask_as(token, "POST", "/db/" + name + "/query", R"({"sql":")" + sql + "\"}");
  }

  Issuer issuer;
  std::unique_ptr<Revocations> revocations;
  std::unique_ptr<Authenticator> authenticator;
  std::string admin;
  std::string shop;  // everything on shop/*
};

}  // namespace offprint::server::testing
