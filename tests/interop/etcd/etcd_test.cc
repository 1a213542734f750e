#include <gtest/gtest.h>

#include "cluster/coordinator_contract.h"
#include "cluster/etcd_coordinator.h"
#include "tests/interop/etcd/etcd_cluster.h"

// The coordinator's driver `etcd` against stock etcd.
namespace offprint::testing {
namespace {

using namespace cluster::testing;
using cluster::Coordinator;
using cluster::EtcdOptions;
using cluster::SwapResult;
using Security = EtcdCluster::Security;

std::shared_ptr<Coordinator> open(const EtcdOptions& options) {
  auto made = cluster::create_etcd_coordinator(options);
  EXPECT_TRUE(made) << made.error().message();
  return std::move(*made);
}

void check(const EtcdCluster& etcd, const EtcdOptions& options) {
  (void)etcd;
  Contract contract{[&] { return open(options); }, "/contract/"};
  check_all(contract);
  check_end({contract.open, "/end/"});
}

TEST(Etcd, OneMemberKeepsTheContract) {
  EtcdCluster etcd(1);
  etcd.wait_ready();
  check(etcd, etcd.options());
}

TEST(Etcd, ThreeMembersKeepTheContract) {
  EtcdCluster etcd(3);
  etcd.wait_ready();
  check(etcd, etcd.options());
}

TEST(Etcd, TlsWithACertificateOfOurs) {
  EtcdCluster etcd(1, Security::kTls);
  etcd.wait_ready();
  check(etcd, etcd.options());
  EtcdOptions nameless = etcd.options();
  nameless.tls.certificate_file.clear();
  nameless.tls.key_file.clear();
  EXPECT_FALSE(read(*open(nameless), "/k", 500)) << "etcd asks for a certificate";
  EtcdOptions trusting = etcd.options();
  trusting.tls.ca_file.clear();
  auto refused = swap(*open(trusting), "/k", 0, "x", 500);
  EXPECT_EQ(refused.outcome, Outcome::kFailed) << "its certificate is not one of the system's";
  EXPECT_NE(refused.error->message().find("certificate"), std::string::npos)
      << refused.error->message();
}

void enable_users(EtcdCluster& etcd) {
  etcd.post("/v3/auth/user/add", R"({"name":"root","password":"root pw"})");
  etcd.post("/v3/auth/user/grant", R"({"user":"root","role":"root"})");
  etcd.post("/v3/auth/role/add", R"({"name":"offprint"})");
  // Keys from /contract/ to /contract0.
  etcd.post("/v3/auth/role/grant",
            R"({"name":"offprint","perm":{"permType":"READWRITE","key":"L2NvbnRyYWN0Lw==",)"
            R"("range_end":"L2NvbnRyYWN0MA=="}})");
  etcd.post("/v3/auth/user/add", R"({"name":"node","password":"its \"pw\""})");
  etcd.post("/v3/auth/user/grant", R"({"user":"node","role":"offprint"})");
  etcd.post("/v3/auth/enable", "{}");
}

TEST(Etcd, UsersPasswordsAndRights) {
  EtcdCluster etcd(1);
  etcd.wait_ready();
  EtcdOptions early = etcd.options("node", "its \"pw\"");
  auto before = open(early);
  ASSERT_TRUE(read(*before, "/contract/k")) << "authentication is not enabled yet";
  enable_users(etcd);
  auto now = read(*before, "/contract/k");
  EXPECT_TRUE(now) << now.error().message();
  check_all({[&] { return open(early); }, "/contract/"});

  auto forbidden = read(*before, "/other");
  ASSERT_FALSE(forbidden);
  EXPECT_EQ(forbidden.error().code(), Code::kForbidden) << forbidden.error().message();
  SwapResult refused = swap(*before, "/other", 0, "x");
  ASSERT_EQ(refused.outcome, Outcome::kFailed);
  EXPECT_EQ(refused.error->code(), Code::kForbidden);
  for (const auto& [user, password] : {std::pair("node", "wrong"), std::pair("", "")}) {
    auto unknown = read(*open(etcd.options(user, password)), "/contract/k");
    ASSERT_FALSE(unknown);
    EXPECT_EQ(unknown.error().code(), Code::kUnauthorized) << unknown.error().message();
  }

  etcd.kill(0);  // which forgets all tokens
  etcd.start(0);
  auto after = read(*before, "/contract/counter", 15'000);
  ASSERT_TRUE(after) << after.error().message();
  EXPECT_TRUE(*after);
}

TEST(Etcd, OneOfThreeMayBeAway) {
  EtcdCluster etcd(3);
  etcd.wait_ready();
  auto one = open(etcd.options());
  std::int64_t version = apply(*one, "/k", 0, "0");
  for (int member = 0; member < 3; ++member) {
    etcd.kill(member);
    auto entry = read(*one, "/k", 10'000);
    ASSERT_TRUE(entry && *entry) << member;
    EXPECT_EQ((*entry)->version, version);
    SwapResult result = swap(*one, "/k", version, "killed", 10'000);
    ASSERT_EQ(result.outcome, Outcome::kApplied) << result.error->message();
    version = result.version;
    etcd.start(member);
    etcd.wait_ready();
  }
  etcd.pause(0);  // accepts connections and never answers
  auto entry = read(*one, "/k", 10'000);
  ASSERT_TRUE(entry && *entry);
  EXPECT_EQ((*entry)->version, version);
  etcd.resume(0);
}

TEST(Etcd, WithoutAMajorityNothingIsAnsweredWrongly) {
  EtcdCluster etcd(3);
  etcd.wait_ready();
  auto one = open(etcd.options());
  std::int64_t version = apply(*one, "/k", 0, "before");
  etcd.kill(1);
  etcd.kill(2);
  Deadline begin = SteadyClock::now();
  auto entry = read(*one, "/k", 1000);
  EXPECT_FALSE(entry) << "a read that is linearizable";
  SwapResult result = swap(*one, "/k", version, "without", 1000);
  EXPECT_TRUE(result.outcome == Outcome::kUnknown || result.outcome == Outcome::kFailed);
  EXPECT_LT(SteadyClock::now() - begin, std::chrono::seconds(6));
  etcd.start(1);
  auto after = read(*one, "/k", 30'000);
  ASSERT_TRUE(after && *after);
  if ((*after)->value == "without") {
    EXPECT_EQ(result.outcome, Outcome::kUnknown) << "a failed swap never lands";
  } else {
    EXPECT_EQ((*after)->version, version);
  }
}

TEST(Etcd, AWipedRegisterEndsTheCoordinator) {
  EtcdCluster etcd(1);
  etcd.wait_ready();
  auto one = open(etcd.options());
  std::int64_t version = apply(*one, "/k", 0, "a");
  apply(*one, "/k", version, "b");
  etcd.kill(0);
  etcd.wipe(0);
  etcd.start(0);
  etcd.wait_ready();
  auto entry = read(*one, "/k", 10'000);
  ASSERT_FALSE(entry);
  EXPECT_EQ(entry.error().code(), Code::kCorrupt) << entry.error().message();
  EXPECT_EQ(swap(*one, "/k", 0, "c").outcome, Outcome::kFailed);
  auto fresh = read(*open(etcd.options()), "/k");
  ASSERT_TRUE(fresh);
  EXPECT_FALSE(*fresh) << "nothing was written into the new register";
}

TEST(Etcd, AnAnnouncementGoesWithTheNodeAndComesBackWhenEtcdLosesIt) {
  EtcdCluster etcd(1);
  etcd.wait_ready();
  auto other = open(etcd.options());
  Hints hints;
  auto watcher = open(etcd.options());
  watcher->watch("/node/", hints.call());
  auto one = open(etcd.options());
  ASSERT_TRUE(announce(*one, {"/node/n1", "here", 2000}));
  EXPECT_TRUE(hints.saw("/node/n1", "here"));
  // As a fault of etcd does: the key goes, the lease stays. "/node/n1" in base64.
  auto before = read(*other, "/node/n1");
  ASSERT_TRUE(before && *before);
  etcd.post("/v3/kv/deleterange", R"({"key":"L25vZGUvbjE="})");
  EXPECT_TRUE(eventually(*other, "/node/n1", [&](const auto& entry) {
    return entry && entry->version > (*before)->version;
  }));
  etcd.kill(0);
  etcd.start(0);
  etcd.wait_ready();
  EXPECT_TRUE(eventually(*other, "/node/n1", [](const auto& entry) { return entry.has_value(); }));
  one.reset();
  EXPECT_TRUE(eventually(*other, "/node/n1", [](const auto& entry) { return !entry; }));
  EXPECT_TRUE(hints.saw("/node/n1", std::nullopt));
  watcher.reset();
}

TEST(Etcd, AWatchGoesOnAtAnotherMember) {
  EtcdCluster etcd(3);
  etcd.wait_ready();
  Hints hints;
  auto watcher = open(etcd.options());
  watcher->watch("/w/", hints.call());
  auto one = open(etcd.options());
  apply(*one, "/w/a", 0, "a");
  EXPECT_TRUE(hints.saw("/w/a", "a"));
  for (int member = 0; member < 3; ++member) {
    etcd.pause(member);
    std::string key = "/w/" + std::to_string(member);
    SwapResult result = swap(*one, key, 0, "x", 2000);
    if (result.outcome == Outcome::kUnknown) {
      EXPECT_TRUE(eventually(*one, key, [](const auto&) { return true; }));
    } else {
      EXPECT_TRUE(hints.saw(key, "x"));
    }
    etcd.resume(member);
    etcd.wait_ready();
  }
  watcher.reset();
}

}  // namespace
}  // namespace offprint::testing
