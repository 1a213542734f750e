#include "archive/s3_client.h"

#include <atomic>
#include <thread>

#include "archive/s3_store_testing.h"

namespace offprint::archive {
namespace {

using S3ClientTest = S3StoreTest;

// --- what the client learns ----------------------------------------------------------------------

TEST_F(S3ClientTest, ClockThatIsWrong) {
  server_.set_hook([&](const FakeRequest& request) -> std::optional<FakeReply> {
    if (request.header("x-amz-date").starts_with("20300101T")) return std::nullopt;
    FakeReply reply = FakeReply::error(403, "RequestTimeTooSkewed");
    reply.headers.emplace_back("Date", "Tue, 01 Jan 2030 12:00:00 GMT");
    return reply;
  });
  ASSERT_TRUE(put("k", "x"));
  ASSERT_TRUE(store_->info("k"));
  EXPECT_EQ(server_.requests().size(), 3U);  // learned once
}

TEST_F(S3ClientTest, ClockThatNoDateSetsRight) {
  server_.set_hook([&](const FakeRequest&) {
    FakeReply reply = FakeReply::error(403, "RequestTimeTooSkewed");
    reply.headers.emplace_back("Date", "nonsense");
    return reply;
  });
  expect_fails(put("k", "x"), Code::kUnauthorized, "RequestTimeTooSkewed");
}

TEST_F(S3ClientTest, BucketOfAnotherRegion) {
  for (int status : {301, 307, 400}) {
    open();
    server_.set_hook([&](const FakeRequest& request) -> std::optional<FakeReply> {
      if (request.header("authorization").contains("/eu-west-9/s3/")) return std::nullopt;
      if (status == 400) {
        return FakeReply{400,
                         {},
                         "<Error><Code>AuthorizationHeaderMalformed</Code>"
                         "<Region>eu-west-9</Region></Error>"};
      }
      FakeReply reply = FakeReply::error(status, "PermanentRedirect");
      reply.headers.emplace_back("x-amz-bucket-region", "eu-west-9");
      return reply;
    });
    std::size_t before = server_.requests().size();
    ASSERT_TRUE(put("k", "x"));
    ASSERT_TRUE(store_->info("k"));
    EXPECT_EQ(server_.requests().size(), before + 3);
  }
}

TEST_F(S3ClientTest, RedirectsWithoutEnd) {
  server_.set_hook([&](const FakeRequest& request) {
    FakeReply reply = FakeReply::error(301, "PermanentRedirect");
    reply.headers.emplace_back("x-amz-bucket-region", fmt::format("region-{}", request.number));
    return reply;
  });
  expect_fails(put("k", "x"), Code::kUnavailable, "PermanentRedirect");
  EXPECT_LT(server_.requests().size(), 10U);
}

TEST_F(S3ClientTest, ExpiredKeysAreReadAgain) {
  server_.set_hook([&](const FakeRequest& request) -> std::optional<FakeReply> {
    if (request.header("x-amz-security-token") == "new") return std::nullopt;
    return FakeReply::error(400, "ExpiredToken");
  });
  expect_fails(put("k", "x"), Code::kUnauthorized, "ExpiredToken");
  variables_["AWS_SESSION_TOKEN"] = "new";
  auto made = put("k", "x");
  EXPECT_TRUE(made) << made.error().message();
}

// --- cancel --------------------------------------------------------------------------------------

TEST_F(S3ClientTest, CancelEndsACallThatWaits) {
  server_.set_hook([&](const FakeRequest&) -> std::optional<FakeReply> {
    server_.hold();
    return std::nullopt;
  });
  std::thread canceller([&] {
    server_.wait_for_held();
    store_->cancel();
  });
  auto before = SteadyClock::now();
  expect_fails(put("k", "x"), Code::kUnavailable, "cancelled");
  EXPECT_LT(SteadyClock::now() - before, std::chrono::seconds(5));
  canceller.join();
  expect_fails(store_->info("k"), Code::kUnavailable, "cancelled");
  expect_fails(get("k"), Code::kUnavailable, "cancelled");
  expect_fails(store_->list(""), Code::kUnavailable, "cancelled");
  expect_fails(store_->remove({"k"}), Code::kUnavailable, "cancelled");
}

TEST_F(S3ClientTest, CancelEndsADownload) {
  server_.add("/b/p/k", text_of(50'000));
  server_.set_hook([&](const FakeRequest& request) -> std::optional<FakeReply> {
    if (request.number > 4) server_.hold();
    return std::nullopt;
  });
  auto source = store_->get("k");
  ASSERT_TRUE(source);
  std::thread canceller([&] {
    server_.wait_for_held();
    store_->cancel();
  });
  Bytes all(50'000);
  auto read = (*source)->read(all);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code(), Code::kUnavailable);
  canceller.join();
}

TEST_F(S3ClientTest, CancelEndsAPauseBetweenTries) {
  options_.retry_first_ms = options_.retry_max_ms = options_.retry_total_ms = 600'000;
  open();
  std::atomic<bool> asked{false};
  server_.set_hook([&](const FakeRequest&) {
    asked = true;
    asked.notify_all();
    return FakeReply::error(503, "SlowDown");
  });
  std::thread canceller([&] {
    asked.wait(false);
    store_->cancel();
  });
  auto before = SteadyClock::now();
  expect_fails(put("k", "x"), Code::kUnavailable, "cancelled");
  EXPECT_LT(SteadyClock::now() - before, std::chrono::seconds(10));
  canceller.join();
}

// A service that says nothing is left after a while, and asked again.
TEST_F(S3ClientTest, StalledTransfersAreTriedAgain) {
  options_.stall_seconds = 1;
  options_.retry_total_ms = 20'000;
  open();
  server_.set_hook([&](const FakeRequest& request) -> std::optional<FakeReply> {
    if (request.number == 1) server_.hold();
    return std::nullopt;
  });
  auto made = put("k", "x");
  EXPECT_TRUE(made) << made.error().message();
}

TEST_F(S3ClientTest, ThreadsShareConnections) {
  std::vector<std::thread> threads;
  std::atomic<int> failed{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int j = 0; j < 25; ++j) {
        std::string key = fmt::format("{}-{}", i, j);
        bool made = put(key, key).has_value();
        auto read = get(key);
        if (!made || !read || *read != key) ++failed;
      }
    });
  }
  for (std::thread& each : threads) each.join();
  EXPECT_EQ(failed, 0);
  EXPECT_LE(server_.connections(), 4);
}

}  // namespace
}  // namespace offprint::archive
