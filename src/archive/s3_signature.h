#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"

// AWS Signature Version 4, in headers: what proves to an S3 service who asks.
namespace offprint::archive {

using Pairs = std::vector<std::pair<std::string, std::string>>;

struct S3Credentials {
  std::string access_key;
  std::string secret_key;
  std::string session_token;  // of temporary credentials; else empty
  bool operator==(const S3Credentials&) const = default;
};

// What is signed. Nothing in it is encoded yet.
struct SignedContent {
  std::string method;
  std::string path = "/";    // from the host on: "/bucket/some key"
  Pairs query;               // in any order
  Pairs headers;             // that are signed: lower-case names, in any order; "host" among them
  std::string payload_hash;  // sha256_hex of the body
};

struct SignatureScope {
  std::string region;
  std::string service = "s3";
  std::string time;  // as amz_time() has it; also in the header x-amz-date
};

// The value of the header Authorization.
std::string authorization(const SignedContent& content, const S3Credentials& credentials,
                          const SignatureScope& scope);

// The first line of what is signed to the last, for tests.
std::string canonical_request(const SignedContent& content);

// Everything but A-Z a-z 0-9 - _ . ~ as %XX; '/' stays where it is kept.
std::string uri_encode(std::string_view text, bool keep_slash);
// Its inverse; a broken %XX stays as it is. `plus_is_space` as forms have it.
std::string uri_decode(std::string_view text, bool plus_is_space);
// "a=1&b=2": encoded, by name.
std::string query_text(Pairs query);

// 20260102T150405Z.
std::string amz_time(std::int64_t unix_ms);

Bytes sha256(ByteView bytes);
std::string sha256_hex(ByteView bytes);
std::string base64(ByteView bytes);
// Empty where the system forbids MD5.
std::string md5_base64(ByteView bytes);

}  // namespace offprint::archive
