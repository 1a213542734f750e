#include "server/token_key.h"

#include <array>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <simdjson.h>

#include "server/json_reader.h"

namespace offprint::server {
namespace {

constexpr std::size_t kSignatureSize = 64;
constexpr std::size_t kHalf = kSignatureSize / 2;
constexpr std::size_t kKeysMax = 64;
constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  void operator()(EVP_PKEY_CTX* context) const { EVP_PKEY_CTX_free(context); }
  void operator()(ECDSA_SIG* signature) const { ECDSA_SIG_free(signature); }
};
template <class T>
using Owned = std::unique_ptr<T, Free>;

Owned<BIO> memory(std::string_view text) {
  return Owned<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::string contents(BIO* bio) {
  char* data = nullptr;
  long size = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<std::size_t>(size));
}

// A passphrase is never asked for.
int no_passphrase(char*, int, int, void*) { return -1; }

// DER of r and s, as OpenSSL wants an ECDSA signature; empty when they are no numbers.
Bytes der_of(ByteView signature) {
  Owned<ECDSA_SIG> parts(ECDSA_SIG_new());
  BIGNUM* r = BN_bin2bn(signature.data(), kHalf, nullptr);
  BIGNUM* s = BN_bin2bn(signature.data() + kHalf, kHalf, nullptr);
  if (!parts || ECDSA_SIG_set0(parts.get(), r, s) != 1) {
    BN_free(r);
    BN_free(s);
    return {};
  }
  unsigned char* der = nullptr;
  int size = i2d_ECDSA_SIG(parts.get(), &der);
  if (size <= 0) return {};
  Bytes bytes(der, der + size);
  OPENSSL_free(der);
  return bytes;
}

Bytes raw_of(ByteView der) {
  const unsigned char* at = der.data();
  Owned<ECDSA_SIG> parts(d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(der.size())));
  Bytes raw(kSignatureSize);
  if (!parts || BN_bn2binpad(ECDSA_SIG_get0_r(parts.get()), raw.data(), kHalf) < 0 ||
      BN_bn2binpad(ECDSA_SIG_get0_s(parts.get()), raw.data() + kHalf, kHalf) < 0) {
    return {};
  }
  return raw;
}

// From an uncompressed point on P-256; null when it is none.
EVP_PKEY* p256_from_point(ByteView point) {
  std::string group = SN_X9_62_prime256v1;
  std::array<OSSL_PARAM, 3> params = {
      OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group.data(), group.size()),
      OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY,
                                        const_cast<std::uint8_t*>(point.data()), point.size()),
      OSSL_PARAM_construct_end()};
  Owned<EVP_PKEY_CTX> context(EVP_PKEY_CTX_new_from_name(nullptr, "EC", nullptr));
  EVP_PKEY* key = nullptr;
  if (!context || EVP_PKEY_fromdata_init(context.get()) != 1 ||
      EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, params.data()) != 1) {
    return nullptr;
  }
  Owned<EVP_PKEY_CTX> check(EVP_PKEY_CTX_new_from_pkey(nullptr, key, nullptr));
  if (!check || EVP_PKEY_public_check(check.get()) != 1) {
    EVP_PKEY_free(key);
    return nullptr;
  }
  return key;
}

bool is_p256(const EVP_PKEY* key) {
  char group[64] = {};
  std::size_t size = 0;
  return EVP_PKEY_get_base_id(key) == EVP_PKEY_EC &&
         EVP_PKEY_get_group_name(key, group, sizeof group, &size) == 1 &&
         std::string_view(group, size) == SN_X9_62_prime256v1;
}

}  // namespace

std::string encode_base64url(ByteView bytes) {
  std::string text;
  std::uint32_t bits = 0;
  int count = 0;
  for (std::uint8_t byte : bytes) {
    bits = bits << 8 | byte;
    for (count += 8; count >= 6; count -= 6) text += kAlphabet[bits >> (count - 6) & 63];
  }
  if (count > 0) text += kAlphabet[bits << (6 - count) & 63];
  return text;
}

std::optional<Bytes> decode_base64url(std::string_view text) {
  static constexpr auto kValues = [] {
    std::array<std::int8_t, 256> values;
    values.fill(-1);
    for (std::size_t i = 0; i < kAlphabet.size(); ++i)
      values[static_cast<unsigned char>(kAlphabet[i])] = static_cast<std::int8_t>(i);
    return values;
  }();
  if (text.size() % 4 == 1) return std::nullopt;
  Bytes bytes;
  bytes.reserve(text.size() * 3 / 4);
  std::uint32_t bits = 0;
  int count = 0;
  for (char c : text) {
    std::int8_t value = kValues[static_cast<unsigned char>(c)];
    if (value < 0) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes.push_back(static_cast<std::uint8_t>(bits >> count));
    }
  }
  if ((bits & ((1u << count) - 1)) != 0) return std::nullopt;
  return bytes;
}

// --- verifying ---------------------------------------------------------------------------------

Result<VerifyingKey> VerifyingKey::make(EVP_PKEY* owned) {
  std::shared_ptr<EVP_PKEY> key(owned, EVP_PKEY_free);
  if (key && EVP_PKEY_get_base_id(key.get()) == EVP_PKEY_ED25519)
    return VerifyingKey(std::move(key), true);
  if (key && is_p256(key.get())) return VerifyingKey(std::move(key), false);
  return fail(Code::kInvalid, "not an Ed25519 or P-256 public key");
}

Result<VerifyingKey> VerifyingKey::from_raw(ByteView bytes) {
  constexpr std::size_t kEd25519Size = 32;
  constexpr std::size_t kPointSize = 65;
  EVP_PKEY* key = nullptr;
  if (bytes.size() == kEd25519Size) {
    key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, bytes.data(), bytes.size());
  } else if (bytes.size() == kPointSize && bytes[0] == 4) {
    key = p256_from_point(bytes);
  }
  return make(key);
}

namespace {

Result<Bytes> jwk_point(simdjson::dom::object object) {
  OFFPRINT_TRY_ASSIGN(auto kind, json_string_field(object, "kty"));
  OFFPRINT_TRY_ASSIGN(auto curve, json_string_field(object, "crv"));
  OFFPRINT_TRY_ASSIGN(auto x_text, json_string_field(object, "x"));
  OFFPRINT_TRY_ASSIGN(auto y_text, json_string_field(object, "y"));
  if (json_field(object, "d")) {
    return fail(Code::kInvalid, "a private key; a server needs the public one only");
  }
  auto x = decode_base64url(x_text.value_or(""));
  auto y = decode_base64url(y_text.value_or(""));
  if (kind == "OKP" && curve == "Ed25519" && x && x->size() == kHalf) return *x;
  if (kind == "EC" && curve == "P-256" && x && y && x->size() == kHalf && y->size() == kHalf) {
    Bytes point = {4};
    append(point, *x);
    append(point, *y);
    return point;
  }
  return fail(Code::kInvalid, "a JSON Web Key that is neither Ed25519 nor P-256");
}

Result<std::vector<Bytes>> jwk_points(const std::string& source) {
  std::string text = source;
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto root, reader.parse(text));
  simdjson::dom::object object;
  if (root.get(object) != simdjson::SUCCESS)
    return fail(Code::kInvalid, "a JSON Web Key is an object");
  OFFPRINT_TRY_ASSIGN(auto set, json_array_field(object, "keys"));
  std::vector<Bytes> points;
  if (!set) {
    OFFPRINT_TRY_ASSIGN(Bytes point, jwk_point(object));
    points.push_back(std::move(point));
    return points;
  }
  for (simdjson::dom::element element : *set) {
    simdjson::dom::object one;
    if (element.get(one) != simdjson::SUCCESS)
      return fail(Code::kInvalid, "a JSON Web Key is an object");
    OFFPRINT_TRY_ASSIGN(Bytes point, jwk_point(one));
    points.push_back(std::move(point));
  }
  return points;
}

}  // namespace

Result<std::vector<VerifyingKey>> VerifyingKey::parse_all(const std::string& text) {
  std::vector<VerifyingKey> keys;
  std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return fail(Code::kInvalid, "it is empty");
  if (text.find("PRIVATE KEY-----") != std::string::npos)
    return fail(Code::kInvalid, "a private key; a server needs the public one only");
  if (text[begin] == '{') {
    OFFPRINT_TRY_ASSIGN(auto points, jwk_points(text));
    for (const Bytes& point : points) {
      OFFPRINT_TRY_ASSIGN(VerifyingKey key, from_raw(point));
      keys.push_back(std::move(key));
    }
  } else if (text.compare(begin, 5, "-----") == 0) {
    Owned<BIO> bio = memory(text);
    while (EVP_PKEY* raw = PEM_read_bio_PUBKEY(bio.get(), nullptr, no_passphrase, nullptr)) {
      OFFPRINT_TRY_ASSIGN(VerifyingKey key, make(raw));
      keys.push_back(std::move(key));
    }
    ERR_clear_error();
  } else {
    std::size_t end = text.find_last_not_of(" \t\r\n=");
    auto bytes = decode_base64url(std::string_view(text).substr(begin, end - begin + 1));
    if (!bytes) return fail(Code::kInvalid, "neither PEM nor a JSON Web Key nor base64url");
    OFFPRINT_TRY_ASSIGN(VerifyingKey key, from_raw(*bytes));
    keys.push_back(std::move(key));
  }
  if (keys.empty()) return fail(Code::kInvalid, "no public key in it");
  if (keys.size() > kKeysMax) return fail(Code::kInvalid, "too many keys");
  return keys;
}

std::string_view VerifyingKey::algorithm() const { return is_ed25519_ ? "EdDSA" : "ES256"; }

bool VerifyingKey::verify(std::string_view message, ByteView signature) const {
  if (signature.size() != kSignatureSize) return false;
  Bytes der = is_ed25519_ ? Bytes(signature.begin(), signature.end()) : der_of(signature);
  Owned<EVP_MD_CTX> context(EVP_MD_CTX_new());
  const EVP_MD* digest = is_ed25519_ ? nullptr : EVP_sha256();
  bool valid =
      context && !der.empty() &&
      EVP_DigestVerifyInit(context.get(), nullptr, digest, nullptr, key_.get()) == 1 &&
      EVP_DigestVerify(context.get(), der.data(), der.size(),
                       reinterpret_cast<const unsigned char*>(message.data()), message.size()) == 1;
  ERR_clear_error();
  return valid;
}

// --- signing -----------------------------------------------------------------------------------

Result<SigningKey> SigningKey::generate(std::string_view algorithm) {
  EVP_PKEY* key = nullptr;
  if (algorithm == "EdDSA") {
    key = EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
  } else if (algorithm == "ES256") {
    key = EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256");
  } else {
    return fail(Code::kInvalid, "the algorithm is EdDSA or ES256");
  }
  OFFPRINT_TRY_ASSIGN(VerifyingKey made, VerifyingKey::make(key));
  return SigningKey(std::move(made));
}

Result<SigningKey> SigningKey::parse(const std::string& text) {
  Owned<BIO> bio = memory(text);
  EVP_PKEY* key = PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, nullptr);
  ERR_clear_error();
  if (key == nullptr) return fail(Code::kInvalid, "not a private key in PEM without a passphrase");
  OFFPRINT_TRY_ASSIGN(VerifyingKey made, VerifyingKey::make(key));
  return SigningKey(std::move(made));
}

Result<Bytes> SigningKey::sign(std::string_view message) const {
  Owned<EVP_MD_CTX> context(EVP_MD_CTX_new());
  const EVP_MD* digest = key_.is_ed25519_ ? nullptr : EVP_sha256();
  Bytes signature(128);
  std::size_t size = signature.size();
  if (!context ||
      EVP_DigestSignInit(context.get(), nullptr, digest, nullptr, key_.key_.get()) != 1 ||
      EVP_DigestSign(context.get(), signature.data(), &size,
                     reinterpret_cast<const unsigned char*>(message.data()), message.size()) != 1) {
    ERR_clear_error();
    return fail(Code::kInternal, "the key cannot sign");
  }
  signature.resize(size);
  return key_.is_ed25519_ ? signature : raw_of(signature);
}

std::string SigningKey::private_pem() const {
  Owned<BIO> bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_PrivateKey(bio.get(), key_.key_.get(), nullptr, nullptr, 0, nullptr, nullptr);
  return contents(bio.get());
}

std::string SigningKey::public_pem() const {
  Owned<BIO> bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_PUBKEY(bio.get(), key_.key_.get());
  return contents(bio.get());
}

}  // namespace offprint::server
