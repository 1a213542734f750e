#include "archive/s3_signature.h"

#include <gtest/gtest.h>

namespace offprint::archive {
namespace {

const std::string kNothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

// The examples of AWS's pages on signing S3 requests.
const S3Credentials kExample{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                             ""};

std::string signature(SignedContent content, const S3Credentials& credentials,
                      const SignatureScope& scope) {
  std::string text = authorization(content, credentials, scope);
  return text.substr(text.rfind('=') + 1);
}

std::string s3_example(SignedContent content) {
  content.headers.emplace_back("host", "examplebucket.s3.amazonaws.com");
  content.headers.emplace_back("x-amz-date", "20130524T000000Z");
  content.headers.emplace_back("x-amz-content-sha256", content.payload_hash);
  return signature(content, kExample, {"us-east-1", "s3", "20130524T000000Z"});
}

TEST(S3Signature, GetObject) {
  EXPECT_EQ(s3_example({"GET", "/test.txt", {}, {{"range", "bytes=0-9"}}, kNothing}),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST(S3Signature, PutObject) {
  std::string hash = sha256_hex(as_bytes("Welcome to Amazon S3."));
  EXPECT_EQ(s3_example({"PUT",
                        "/test$file.text",
                        {},
                        {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
                         {"x-amz-storage-class", "REDUCED_REDUNDANCY"}},
                        hash}),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

TEST(S3Signature, QueryWithoutValue) {
  EXPECT_EQ(s3_example({"GET", "/", {{"lifecycle", ""}}, {}, kNothing}),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
}

TEST(S3Signature, QueryIsSorted) {
  EXPECT_EQ(s3_example({"GET", "/", {{"prefix", "J"}, {"max-keys", "2"}}, {}, kNothing}),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

// Of AWS's test suite of the algorithm.
std::string vanilla(Pairs query, const std::string& path = "/", const std::string& method = "GET") {
  S3Credentials credentials{"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", ""};
  SignedContent content{method,
                        path,
                        std::move(query),
                        {{"x-amz-date", "20150830T123600Z"}, {"host", "example.amazonaws.com"}},
                        kNothing};
  return signature(content, credentials, {"us-east-1", "service", "20150830T123600Z"});
}

TEST(S3Signature, GetVanilla) {
  EXPECT_EQ(vanilla({}), "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
}
TEST(S3Signature, PostVanilla) {
  EXPECT_EQ(vanilla({}, "/", "POST"),
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
}
TEST(S3Signature, GetVanillaQueryOrderKey) {
  EXPECT_EQ(vanilla({{"Param2", "value2"}, {"Param1", "value1"}}),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
}
TEST(S3Signature, GetUtf8) {
  EXPECT_EQ(vanilla({}, "/\xe1\x88\xb4"),
            "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85");
}

TEST(S3Signature, CanonicalRequest) {
  SignedContent content{"PUT",
                        "/b/a key+@~/x",
                        {{"b", "2 3"}, {"a-b", "x/y"}, {"a", ""}},
                        {{"x-amz-b", "  two   words "}, {"host", "h"}},
                        "hash"};
  EXPECT_EQ(canonical_request(content),
            "PUT\n/b/a%20key%2B%40~/x\na=&a-b=x%2Fy&b=2%203\nhost:h\nx-amz-b:two words\n\n"
            "host;x-amz-b\nhash");
}

TEST(S3Signature, AuthorizationHasScopeAndNoSecret) {
  std::string text = authorization({"GET", "/", {}, {{"host", "h"}}, kNothing}, kExample,
                                   {"eu-west-1", "s3", "20260102T030405Z"});
  EXPECT_TRUE(
      text.starts_with("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260102/"
                       "eu-west-1/s3/aws4_request,SignedHeaders=host,Signature="))
      << text;
  EXPECT_EQ(text.find(kExample.secret_key), std::string::npos);
}

TEST(S3Signature, Encoding) {
  EXPECT_EQ(uri_encode("a/b c%\xff", false), "a%2Fb%20c%25%FF");
  EXPECT_EQ(uri_encode("a/b", true), "a/b");
  EXPECT_EQ(uri_decode("a%2Fb+c%25%fF%4", true), "a/b c%\xff%4");
  EXPECT_EQ(uri_decode("a+b%zz", false), "a+b%zz");
}

TEST(S3Signature, TimeAndHashes) {
  EXPECT_EQ(amz_time(1'440'938'160'999), "20150830T123600Z");
  EXPECT_EQ(sha256_hex({}), kNothing);
  EXPECT_EQ(md5_base64({}), "1B2M2Y8AsgTpgAmY7PhCfg==");
  EXPECT_EQ(base64(as_bytes("any")), "YW55");
}

}  // namespace
}  // namespace offprint::archive
