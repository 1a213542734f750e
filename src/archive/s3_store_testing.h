#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "archive/s3_store.h"
#include "archive/s3_testing.h"

// A store over a FakeS3, with short pauses and small ranges.
namespace offprint::archive {

using testing::HasSubstr;

constexpr const char* kSecret = "the-secret-key";

inline PutOptions if_absent() {
  PutOptions options;
  options.if_absent = true;
  return options;
}
inline PutOptions if_version(const std::string& version) {
  PutOptions options;
  options.if_version = version;
  return options;
}
inline PutOptions at(std::int64_t timestamp_ms) {
  PutOptions options;
  options.timestamp_ms = timestamp_ms;
  return options;
}

class S3StoreTest : public testing::Test {
 protected:
  S3StoreTest() {
    variables_ = {{"AWS_ACCESS_KEY_ID", "key-id"}, {"AWS_SECRET_ACCESS_KEY", kSecret}};
    options_.retry_first_ms = 1;
    options_.retry_max_ms = 4;
    options_.retry_total_ms = 5'000;
    options_.range_bytes = 1000;
    open();
  }

  void open(const std::string& parameters = "") {
    S3Environment environment{[this](const char* name) {
                                auto it = variables_.find(name);
                                return it == variables_.end() ? std::string() : it->second;
                              },
                              &FileSystem::real()};
    auto opened = open_s3_store("s3://b/p?endpoint=" + server_.endpoint() + parameters, environment,
                                options_);
    ASSERT_TRUE(opened) << opened.error().message();
    store_ = std::move(*opened);
  }
  Result<ObjectInfo> put(const std::string& key, std::string_view content,
                         const PutOptions& options = {}) {
    ltx::BytesSource source(as_bytes(content));
    return store_->put(key, source, options);
  }
  Result<std::string> get(const std::string& key, std::uint64_t offset = 0) {
    OFFPRINT_TRY_ASSIGN(auto source, store_->get(key, offset));
    std::string content, piece(333, 0);
    for (;;) {
      auto* to = reinterpret_cast<std::uint8_t*>(piece.data());
      OFFPRINT_TRY_ASSIGN(std::size_t got, source->read(std::span(to, piece.size())));
      content += piece.substr(0, got);
      if (got == 0) return content;
    }
  }
  static std::string text_of(std::size_t size) {
    std::string text;
    for (std::uint32_t i = 0; text.size() < size; ++i) text += std::to_string(i * 2654435761U);
    text.resize(size);
    return text;
  }
  // The first `count` requests that `which` picks are answered so.
  void answer_first(int count, const std::string& method, const FakeReply& reply) {
    left_ = count;
    server_.set_hook([this, method, reply](const FakeRequest& request) -> std::optional<FakeReply> {
      if (request.method != method || left_.fetch_sub(1) <= 0) return std::nullopt;
      return reply;
    });
  }
  void expect_fails(const Result<>& result, Code code, const std::string& text) {
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code(), code) << result.error().message();
    EXPECT_THAT(result.error().message(), HasSubstr(text));
    EXPECT_THAT(result.error().message(), testing::Not(HasSubstr(kSecret)));
  }
  template <class T>
  void expect_fails(const Result<T>& result, Code code, const std::string& text) {
    expect_fails(result ? Result<>() : Result<>(std::unexpected(result.error())), code, text);
  }

  FakeS3 server_;
  std::map<std::string, std::string> variables_;
  S3Options options_;
  std::atomic<int> left_{0};
  std::unique_ptr<ObjectStore> store_;
};

}  // namespace offprint::archive
