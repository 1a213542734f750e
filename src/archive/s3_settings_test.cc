#include "archive/s3_settings.h"

#include <filesystem>
#include <map>

#include <gtest/gtest.h>

#include "archive/s3_testing.h"

namespace offprint::archive {
namespace {

class S3SettingsTest : public testing::Test {
 protected:
  S3SettingsTest() { variables_["HOME"] = folder_.path(); }

  void write(const std::string& name, const std::string& content) {
    std::filesystem::create_directories(folder_.path() + "/.aws");
    ASSERT_TRUE(
        write_file_atomically(FileSystem::real(), folder_.path() + "/" + name, as_bytes(content)));
  }
  S3Environment environment() {
    return {[this](const char* name) {
              auto it = variables_.find(name);
              return it == variables_.end() ? std::string() : it->second;
            },
            &FileSystem::real()};
  }
  S3Settings settings(const std::string& url) {
    auto read = read_s3_settings(url, environment());
    EXPECT_TRUE(read) << (read ? "" : read.error().message());
    return read ? *read : S3Settings{};
  }
  std::string refused(const std::string& url) {
    auto read = read_s3_settings(url, environment());
    if (read) return "accepted";
    EXPECT_EQ(read.error().code(), Code::kInvalid);
    return read.error().message();
  }
  S3Credentials keys(const std::string& url) {
    auto read = read_s3_credentials(settings(url), environment());
    EXPECT_TRUE(read) << (read ? "" : read.error().message());
    return read ? *read : S3Credentials{};
  }

  TemporaryFolder folder_;
  std::map<std::string, std::string> variables_;
};

TEST_F(S3SettingsTest, PlainUrlIsAws) {
  S3Settings s = settings("s3://bucket/some/prefix/?region=eu-central-1");
  EXPECT_EQ(s.url, "s3://bucket/some/prefix");
  EXPECT_EQ(s.prefix, "some/prefix/");
  EXPECT_EQ(s.scheme, "https");
  EXPECT_FALSE(s.path_style);
  EXPECT_EQ(s.request_host(s.region), "bucket.s3.eu-central-1.amazonaws.com");
  EXPECT_EQ(s.request_host("us-west-2"), "bucket.s3.us-west-2.amazonaws.com");
  EXPECT_EQ(s.request_path("a/b"), "/a/b");
  EXPECT_EQ(s.request_path(""), "/");
  EXPECT_EQ(settings("s3://bucket").region, "us-east-1");
  EXPECT_EQ(settings("s3://bucket").prefix, "");
}

TEST_F(S3SettingsTest, DotsInABucketNeedPaths) {
  S3Settings s = settings("s3://my.bucket/p");
  EXPECT_TRUE(s.path_style);
  EXPECT_EQ(s.request_host("r"), "s3.r.amazonaws.com");
  EXPECT_EQ(s.request_path("k"), "/my.bucket/k");
}

TEST_F(S3SettingsTest, Endpoints) {
  S3Settings s = settings("s3://b/p?endpoint=http://Localhost:9000/");
  EXPECT_EQ(s.scheme, "http");
  EXPECT_EQ(s.request_host("x"), "localhost:9000");
  EXPECT_TRUE(s.path_style);
  EXPECT_EQ(s.request_path("k"), "/b/k");
  EXPECT_EQ(s.request_path(""), "/b");
  s = settings("s3://b/p?endpoint=https%3A%2F%2Fhost.example%3A443%2Fstorage%2Fs3&path_style=0");
  EXPECT_EQ(s.request_host("x"), "b.host.example");
  EXPECT_EQ(s.request_path("k"), "/storage/s3/k");
  EXPECT_EQ(settings("s3://b/p?endpoint=http://[::1]:80").host, "[::1]");
  EXPECT_EQ(settings("s3://b/p?endpoint=http://[::1]:81").host, "[::1]:81");
}

TEST_F(S3SettingsTest, WhichEndpointGoesFirst) {
  write(".aws/config", "[default]\nendpoint_url = http://file.example\nregion = from-file\n");
  EXPECT_EQ(settings("s3://b").host, "file.example");
  EXPECT_EQ(settings("s3://b").region, "from-file");
  variables_["AWS_ENDPOINT_URL"] = "http://all.example";
  EXPECT_EQ(settings("s3://b").host, "all.example");
  variables_["AWS_ENDPOINT_URL_S3"] = "http://s3.example";
  EXPECT_EQ(settings("s3://b").host, "s3.example");
  EXPECT_EQ(settings("s3://b?endpoint=http://url.example").host, "url.example");
  variables_["AWS_DEFAULT_REGION"] = "second";
  EXPECT_EQ(settings("s3://b").region, "second");
  variables_["AWS_REGION"] = "first";
  EXPECT_EQ(settings("s3://b").region, "first");
  EXPECT_EQ(settings("s3://b?region=url").region, "url");
}

TEST_F(S3SettingsTest, BadUrls) {
  for (const char* url : {"s3://", "s3:///prefix", "s3://b b/p", "s3://.b", "s3://b/p#x", "s3:/b"})
    EXPECT_NE(refused(url).find("s3://BUCKET/PREFIX"), std::string::npos) << url;
  EXPECT_NE(refused("s3://b/p?colour=red").find("unknown parameter 'colour'"), std::string::npos);
  EXPECT_NE(refused("s3://b/p?path_style=maybe").find("path_style 'maybe'"), std::string::npos);
  EXPECT_NE(refused("s3://b/p?region=").find("region is empty"), std::string::npos);
  EXPECT_NE(refused("s3://b/p?region=a/b").find("no such region"), std::string::npos);
  EXPECT_NE(refused("s3://b/p?profile=none").find("profile 'none'"), std::string::npos);
  EXPECT_NE(refused("s3://b/p?ca_file=/no/such").find("no such file"), std::string::npos);
  for (const char* endpoint : {"host:9000", "ftp://host", "http://", "http://h:0", "http://h:70000",
                               "http://h:x", "http://a%20b", "http://h/?x=1", "http://[::1"}) {
    EXPECT_NE(refused(std::string("s3://b/p?endpoint=") + endpoint).find("endpoint"),
              std::string::npos)
        << endpoint;
  }
  EXPECT_NE(refused("s3://b?endpoint=http://[::1]:1&path_style=0").find("path_style"),
            std::string::npos);
  variables_["AWS_ENDPOINT_URL"] = "nonsense";
  EXPECT_NE(refused("s3://b").find("AWS_ENDPOINT_URL"), std::string::npos);
}

TEST_F(S3SettingsTest, SecretsInUrlsAreRefusedAndNotShown) {
  EXPECT_EQ(refused("s3://KEY:SECRET@bucket/p").find("SECRET"), std::string::npos);
  std::string said = refused("s3://b/p?endpoint=http://user:SECRET@host");
  EXPECT_NE(said.find("no user or password"), std::string::npos);
  EXPECT_EQ(said.find("SECRET"), std::string::npos);
}

TEST_F(S3SettingsTest, KeysOfTheEnvironment) {
  variables_["AWS_ACCESS_KEY_ID"] = "id";
  variables_["AWS_SECRET_ACCESS_KEY"] = "secret";
  variables_["AWS_SESSION_TOKEN"] = "token";
  EXPECT_EQ(keys("s3://b"), (S3Credentials{"id", "secret", "token"}));
  variables_["AWS_SECRET_ACCESS_KEY"] = "";
  auto half = read_s3_credentials(settings("s3://b"), environment());
  ASSERT_FALSE(half);
  EXPECT_NE(half.error().message().find("one of the two keys is missing"), std::string::npos);
  variables_["AWS_SECRET_ACCESS_KEY"] = "line\nbreak";
  auto broken = read_s3_credentials(settings("s3://b"), environment());
  ASSERT_FALSE(broken);
  EXPECT_EQ(broken.error().message().find("line"), std::string::npos);
}

TEST_F(S3SettingsTest, KeysOfProfiles) {
  write(".aws/credentials",
        "# remark\n[default]\naws_access_key_id=d\naws_secret_access_key = ds \n"
        "[ other ]\r\nAWS_ACCESS_KEY_ID = o ; remark\r\naws_secret_access_key = o=s\r\n"
        "aws_session_token = t\r\n");
  write(".aws/config",
        "[profile third]\naws_access_key_id = c\ns3 =\n  aws_access_key_id = nested\n"
        "aws_secret_access_key = cs\nregion = r3\nca_bundle = " +
            folder_.path() + "/.aws/config\nbroken line\n[unclosed\nregion = no\n");
  EXPECT_EQ(keys("s3://b"), (S3Credentials{"d", "ds", ""}));
  EXPECT_EQ(keys("s3://b?profile=other"), (S3Credentials{"o", "o=s", "t"}));
  EXPECT_EQ(keys("s3://b?profile=third"), (S3Credentials{"c", "cs", ""}));
  EXPECT_EQ(settings("s3://b?profile=third").region, "r3");
  EXPECT_EQ(settings("s3://b?profile=third").ca_file, folder_.path() + "/.aws/config");
  variables_["AWS_PROFILE"] = "other";
  EXPECT_EQ(keys("s3://b").access_key, "o");
  // Keys of the environment go before AWS_PROFILE, not before the URL's profile.
  variables_["AWS_ACCESS_KEY_ID"] = variables_["AWS_SECRET_ACCESS_KEY"] = "env";
  EXPECT_EQ(keys("s3://b").access_key, "env");
  EXPECT_EQ(keys("s3://b?profile=third").access_key, "c");
}

TEST_F(S3SettingsTest, FilesOfOtherNames) {
  write("mine", "[default]\naws_access_key_id = m\naws_secret_access_key = ms\n");
  write("my-config", "[profile default]\nregion = here\n");
  variables_["AWS_SHARED_CREDENTIALS_FILE"] = folder_.path() + "/mine";
  variables_["AWS_CONFIG_FILE"] = folder_.path() + "/my-config";
  EXPECT_EQ(keys("s3://b").access_key, "m");
  EXPECT_EQ(settings("s3://b").region, "here");
}

TEST_F(S3SettingsTest, NoKeysSaysWhereTheyWereLookedFor) {
  for (const char* home : {folder_.path().c_str(), ""}) {
    variables_["HOME"] = home;
    auto none = read_s3_credentials(settings("s3://b/p"), environment());
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code(), Code::kInvalid);
    EXPECT_NE(none.error().message().find("s3://b/p: no keys: neither AWS_ACCESS_KEY_ID"),
              std::string::npos);
  }
}

TEST_F(S3SettingsTest, CaFile) {
  write("ca.pem", "x");
  variables_["AWS_CA_BUNDLE"] = folder_.path() + "/ca.pem";
  EXPECT_EQ(settings("s3://b").ca_file, folder_.path() + "/ca.pem");
}

}  // namespace
}  // namespace offprint::archive
