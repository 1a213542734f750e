#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <openssl/types.h>

#include "base/bytes.h"
#include "base/result.h"

// Keys of tokens: Ed25519 (EdDSA) and P-256 (ES256). A key's kind alone decides how it is used.
namespace offprint::server {

// RFC 4648 section 5 without padding. Strict: nothing but the alphabet, no length that is not one
// of an encoding, and no bits that are left over.
std::string encode_base64url(ByteView bytes);
std::optional<Bytes> decode_base64url(std::string_view text);

// Checks signatures. Thread: any.
class VerifyingKey {
 public:
  // All keys of a text: PEM public keys, JSON Web Keys (one, or a set of them), or one raw key in
  // base64url (32 bytes: Ed25519). kInvalid: none, another kind of key, a private one.
  static Result<std::vector<VerifyingKey>> parse_all(const std::string& text);

  // "EdDSA" or "ES256".
  std::string_view algorithm() const;
  // A signature as tokens carry it: 64 bytes of either kind.
  bool verify(std::string_view message, ByteView signature) const;

 private:
  friend class SigningKey;
  explicit VerifyingKey(std::shared_ptr<EVP_PKEY> key, bool is_ed25519)
      : key_(std::move(key)), is_ed25519_(is_ed25519) {}
  static Result<VerifyingKey> make(EVP_PKEY* owned);
  static Result<VerifyingKey> from_raw(ByteView bytes);

  std::shared_ptr<EVP_PKEY> key_;
  bool is_ed25519_;
};

// Makes signatures.
class SigningKey {
 public:
  // "EdDSA" or "ES256"; kInvalid otherwise.
  static Result<SigningKey> generate(std::string_view algorithm);
  // PEM.
  static Result<SigningKey> parse(const std::string& text);

  std::string_view algorithm() const { return key_.algorithm(); }
  Result<Bytes> sign(std::string_view message) const;
  std::string private_pem() const;
  std::string public_pem() const;

 private:
  explicit SigningKey(VerifyingKey key) : key_(std::move(key)) {}
  VerifyingKey key_;
};

}  // namespace offprint::server
