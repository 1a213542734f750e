#include "cluster/etcd_session.h"

#include <gtest/gtest.h>

#include "cluster/coordinator_testing.h"
#include "cluster/etcd_coordinator.h"
#include "cluster/etcd_testing.h"

// Endpoints that do not what etcd does. What etcd does: tests/interop/etcd/.
namespace offprint::cluster {
namespace {

using namespace testing;
using Outcome = SwapResult::Outcome;
using Then = FakeReply::Then;

constexpr const char* kHeader =
    R"("header":{"cluster_id":"14841639068965178418","revision":"REV"})";

std::string header(int revision) {
  std::string text = kHeader;
  return text.replace(text.find("REV"), 3, std::to_string(revision));
}

// As an etcd that has /k = v at revision 5, and applies swaps as revision 6.
FakeReply sound(const FakeRequest& request) {
  std::string entry = R"("kvs":[{"key":"L2s=","mod_revision":"5","value":"dg=="}],"count":"1")";
  if (request.path == kEtcdRange) return FakeReply::json("{" + header(6) + "," + entry + "}");
  if (request.path == kEtcdTxn) {
    return FakeReply::json("{" + header(6) +
                           R"(,"succeeded":true,"responses":[{"response_put":{}}]})");
  }
  return FakeReply::error(404, 5, "Not Found");
}

std::unique_ptr<Coordinator> connect(std::initializer_list<FakeEndpoint*> endpoints,
                                     const std::string& user = "") {
  EtcdOptions options;
  for (FakeEndpoint* each : endpoints) options.endpoints.push_back(each->url());
  options.attempt_timeout_ms = 200;
  options.user = user;
  options.password = "secret\"";
  auto made = create_etcd_coordinator(options);
  EXPECT_TRUE(made) << made.error().message();
  return std::move(*made);
}

void expect_value(Coordinator& from) {
  auto entry = read(from, "/k");
  ASSERT_TRUE(entry) << entry.error().message();
  ASSERT_TRUE(*entry);
  EXPECT_EQ(**entry, (RegisterEntry{"/k", "v", 5}));
}

// Runs `call` and expects it to end about at its deadline.
void expect_in_time(int timeout_ms, const std::function<void()>& call) {
  Deadline begin = SteadyClock::now();
  call();
  EXPECT_LT(SteadyClock::now() - begin, std::chrono::milliseconds(timeout_ms + 2000));
}

TEST(EtcdSession, AnEndpointThatHangsCostsTheDeadlineAndNoMore) {
  FakeEndpoint endpoint([](const FakeRequest&) { return FakeReply::hang(); });
  auto one = connect({&endpoint});
  expect_in_time(500, [&] {
    auto entry = read(*one, "/k", 500);
    ASSERT_FALSE(entry);
    EXPECT_TRUE(entry.error().code() == Code::kTimeout ||
                entry.error().code() == Code::kUnavailable);
  });
  expect_in_time(300, [&] {
    SwapResult result = swap(*one, "/k", 5, "w", 300);
    EXPECT_EQ(result.outcome, Outcome::kUnknown);
    EXPECT_EQ(result.error->code(), Code::kTimeout);
  });
  EXPECT_EQ(endpoint.count(kEtcdTxn), 1);
}

TEST(EtcdSession, ReadsGoOnToTheNextEndpointAndStayThere) {
  FakeEndpoint hangs([](const FakeRequest&) { return FakeReply::hang(); });
  FakeEndpoint works(sound);
  auto one = connect({&hangs, &works});
  expect_value(*one);
  EXPECT_EQ(hangs.count(kEtcdRange), 1);
  expect_value(*one);
  EXPECT_EQ(swap(*one, "/k", 5, "w").outcome, Outcome::kApplied);
  EXPECT_EQ(hangs.requests().size(), 1u);
}

TEST(EtcdSession, ASwapGoesOnWhenItWasNotSent) {
  std::string gone;
  {
    FakeEndpoint closed(sound);
    gone = closed.url();
  }
  FakeEndpoint works(sound);
  EtcdOptions options;
  options.endpoints = {gone, works.url()};
  auto one = create_etcd_coordinator(options).value();
  SwapResult result = swap(*one, "/k", 5, "w");
  EXPECT_EQ(result.outcome, Outcome::kApplied);
  EXPECT_EQ(result.version, 6);
  options.endpoints = {gone};
  auto other = create_etcd_coordinator(options).value();
  expect_in_time(300, [&] {
    SwapResult failed = swap(*other, "/k", 5, "w", 300);
    EXPECT_EQ(failed.outcome, Outcome::kFailed);
    EXPECT_EQ(failed.error->code(), Code::kUnavailable) << failed.error->message();
  });
}

// What is no whole answer of etcd's: the outcome of a swap is unknown, and it is sent once.
TEST(EtcdSession, GarbageAndHalfAnswersAreNoAnswers) {
  const std::vector<FakeReply> replies = {
      {"garbage\r\n\r\n", Then::kClose},
      {"", Then::kClose},
      {"", Then::kReset},
      {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"header\":", Then::kClose},
      {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"header\":", Then::kHang},
      FakeReply::json(""),
      FakeReply::json("[]"),
      FakeReply::json("{}"),
      FakeReply::json("<html>a portal</html>"),
      FakeReply::json("{" + header(0) + "}"),
      FakeReply::json("{" + header(6) + ",\"succeeded\":true}"),
      FakeReply::json("{" + header(6) + R"(,"responses":[{"response_put":{}}]})"),
      FakeReply::json("{" + header(6) + R"(,"kvs":[{"key":"!"}]})"),
      FakeReply::json("not found", 404),
      FakeReply::json("bad gateway", 502),
      FakeReply::error(503, 14, "transport is closing"),
      FakeReply::error(503, 14, "etcdserver: request timed out"),
      FakeReply::error(400, 3, "said by a proxy"),
  };
  for (const FakeReply& reply : replies) {
    FakeEndpoint broken([&](const FakeRequest&) { return reply; });
    FakeEndpoint works(sound);
    auto one = connect({&broken, &works});
    expect_in_time(400, [&] {
      SwapResult result = swap(*one, "/k", 5, "w", 400);
      EXPECT_EQ(result.outcome, Outcome::kUnknown) << reply.bytes;
    });
    EXPECT_EQ(broken.count(kEtcdTxn), 1) << reply.bytes;
    EXPECT_EQ(works.count(kEtcdTxn), 0) << reply.bytes;
    expect_value(*one);
  }
}

// libcurl repeats a request when a kept connection turns out to be closed; a swap must not be.
TEST(EtcdSession, ASwapIsNotRepeatedOnAKeptConnectionThatBreaks) {
  FakeEndpoint endpoint([](const FakeRequest& request) -> FakeReply {
    if (request.path == kEtcdTxn) return {"", Then::kReset};
    return sound(request);
  });
  auto one = connect({&endpoint});
  for (int round = 1; round <= 5; ++round) {
    expect_value(*one);
    EXPECT_EQ(swap(*one, "/k", 5, "w", 500).outcome, Outcome::kUnknown);
    EXPECT_EQ(endpoint.count(kEtcdTxn), round);
  }
}

// A kept connection may be closed already, and then nobody knows whether a swap arrived.
TEST(EtcdSession, ASwapGoesOverAConnectionOfItsOwn) {
  FakeEndpoint endpoint([](const FakeRequest& request) -> FakeReply {
    if (request.number > 1) return {"", Then::kReset};
    return sound(request);
  });
  auto one = connect({&endpoint});
  for (int round = 0; round < 5; ++round) {
    expect_value(*one);
    EXPECT_EQ(swap(*one, "/k", 5, "w").outcome, Outcome::kApplied);
  }
}

TEST(EtcdSession, ATokenThatCannotBeFetchedYetIsWaitedFor) {
  std::atomic<int> refusals{3};
  FakeEndpoint endpoint([&](const FakeRequest& request) {
    if (refusals.fetch_sub(1) > 0) return FakeReply::error(503, 14, "etcdserver: no leader");
    if (request.path == kEtcdAuthenticate) return FakeReply::json(R"({"token":"t"})");
    return sound(request);
  });
  auto one = connect({&endpoint}, "root");
  expect_value(*one);
}

TEST(EtcdSession, WhatEtcdRefusesDefinitelyFailsDefinitely) {
  for (const auto& [status, code, message] :
       {std::tuple(403, 7, "etcdserver: permission denied"),
        std::tuple(429, 8, "etcdserver: mvcc: database space exceeded"),
        std::tuple(400, 3, "etcdserver: request is too large")}) {
    FakeEndpoint endpoint(
        [&](const FakeRequest&) { return FakeReply::error(status, code, message); });
    auto one = connect({&endpoint});
    SwapResult result = swap(*one, "/k", 5, "w");
    EXPECT_EQ(result.outcome, Outcome::kFailed) << message;
    EXPECT_NE(result.error->message().find(message), std::string::npos);
  }
}

TEST(EtcdSession, ATokenIsFetchedAndRenewedWhenItIsRefused) {
  std::atomic<int> tokens{0};
  FakeEndpoint endpoint([&](const FakeRequest& request) {
    if (request.path == kEtcdAuthenticate) {
      EXPECT_EQ(request.body, R"({"name":"root","password":"secret\""})");
      return FakeReply::json(fmt::format(R"({{"token":"t{}"}})", ++tokens));
    }
    if (request.token != "t2" && request.token != "t3")
      return FakeReply::error(401, 16, "etcdserver: invalid auth token");
    return sound(request);
  });
  auto one = connect({&endpoint}, "root");
  expect_value(*one);
  EXPECT_EQ(tokens, 2);
  EXPECT_EQ(swap(*one, "/k", 5, "w").outcome, Outcome::kApplied);
  EXPECT_EQ(tokens, 2);
}

TEST(EtcdSession, ARefusedPasswordAndAMissingUserAreNamed) {
  FakeEndpoint endpoint([&](const FakeRequest& request) {
    if (request.path == kEtcdAuthenticate)
      return FakeReply::error(400, 3,
                              "etcdserver: authentication failed, invalid user ID or password");
    return FakeReply::error(400, 3, "etcdserver: user name is empty");
  });
  for (const char* user : {"root", ""}) {
    auto one = connect({&endpoint}, user);
    auto entry = read(*one, "/k");
    ASSERT_FALSE(entry);
    EXPECT_EQ(entry.error().code(), Code::kUnauthorized) << entry.error().message();
    SwapResult result = swap(*one, "/k", 5, "w");
    ASSERT_EQ(result.outcome, Outcome::kFailed);
    EXPECT_EQ(result.error->code(), Code::kUnauthorized);
  }
}

TEST(EtcdSession, ARegisterThatWentBackEndsTheCoordinator) {
  std::atomic<int> revision{5};
  FakeEndpoint endpoint(
      [&](const FakeRequest&) { return FakeReply::json("{" + header(revision) + "}"); });
  auto one = connect({&endpoint});
  ASSERT_TRUE(read(*one, "/k"));
  revision = 4;
  for (int i = 0; i < 2; ++i) {
    auto entry = read(*one, "/k", 1000);
    ASSERT_FALSE(entry);
    EXPECT_NE(entry.error().message().find("went back"), std::string::npos);
    EXPECT_EQ(entry.error().code(), Code::kCorrupt);
  }
  revision = 9;
  EXPECT_FALSE(read(*one, "/k")) << "an operator must look first";
  EXPECT_EQ(swap(*one, "/k", 0, "x").outcome, Outcome::kFailed);
  EXPECT_FALSE(announce(*one, {"/n", "x", 2000}));
}

TEST(EtcdSession, AMemberOfAnotherClusterIsLeftForTheOthers) {
  std::atomic<bool> fails{false};
  FakeEndpoint one_of_ours([&](const FakeRequest& request) {
    return fails.exchange(false) ? FakeReply{"", Then::kClose} : sound(request);
  });
  FakeEndpoint foreign([](const FakeRequest&) {
    return FakeReply::json(R"({"header":{"cluster_id":"7","revision":"99"}})");
  });
  auto one = connect({&one_of_ours, &foreign});
  expect_value(*one);
  fails = true;
  expect_value(*one);
  EXPECT_EQ(foreign.count(kEtcdRange), 1);
}

// The destructor answers what is under way: what may have been sent is unknown.
TEST(EtcdSession, TheEndAnswersWhatIsUnderWay) {
  FakeEndpoint endpoint([](const FakeRequest&) { return FakeReply::hang(); });
  std::promise<SwapResult> swapped;
  std::promise<Code> was_read;
  {
    auto one = connect({&endpoint});
    one->compare_and_swap({"/k", 5, "w"}, in_ms(60'000),
                          [&](SwapResult result) { swapped.set_value(std::move(result)); });
    one->read("/k", in_ms(60'000),
              [&](const auto& entry) { was_read.set_value(entry.error().code()); });
    while (endpoint.count(kEtcdTxn) == 0) std::this_thread::yield();
  }
  EXPECT_EQ(swapped.get_future().get().outcome, Outcome::kUnknown);
  EXPECT_EQ(was_read.get_future().get(), Code::kUnavailable);
}

TEST(EtcdSession, EndpointsAreReadAsUsersWriteThem) {
  auto several = parse_etcd_endpoints("http://127.0.0.1:2379,https://localhost:2380/");
  ASSERT_TRUE(several);
  EXPECT_EQ(*several,
            (std::vector<std::string>{"http://127.0.0.1:2379", "https://localhost:2380"}));
  for (const char* text : {"", ",", "localhost:2379", "ftp://localhost", "http://",
                           "http://localhost/path", "http://user:pw@localhost"}) {
    auto wrong = parse_etcd_endpoints(text);
    ASSERT_FALSE(wrong) << text;
    EXPECT_EQ(wrong.error().code(), Code::kInvalid);
  }
  EXPECT_FALSE(create_etcd_coordinator({}));
  EtcdOptions options;
  options.endpoints = {"https://localhost:1"};
  options.tls.ca_file = "/absent/ca.pem";
  EXPECT_FALSE(create_etcd_coordinator(options));
}

}  // namespace
}  // namespace offprint::cluster
