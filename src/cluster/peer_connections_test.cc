#include "cluster/peer_connections.h"

#include <atomic>

#include <gtest/gtest.h>

#include "cluster/peer_call.h"

namespace offprint::cluster {
namespace {

using namespace std::chrono_literals;

// One end, and what it heard.
struct End {
  explicit End(std::uint64_t id, const std::string& secret, const std::string& cluster = "test") {
    auto created = PeerConnections::create({.cluster = cluster,
                                            .self = {"n" + std::to_string(id), id},
                                            .listen = "127.0.0.1:0",
                                            .secret = secret});
    EXPECT_TRUE(created) << created.error().message();
    peers = *std::move(created);
    peers->start({.received = [this](MemberId, PeerMessage message) { heard = message.group; },
                  .connected = [this](MemberId) { ++connected; }});
  }
  ~End() { peers->stop(); }
  void know(std::uint64_t id, const End& other) {
    peers->set_peer({"n" + std::to_string(id), id},
                    "127.0.0.1:" + std::to_string(other.peers->port()));
  }
  std::atomic<std::uint32_t> heard = 0;
  std::atomic<int> connected = 0;
  std::unique_ptr<PeerConnections> peers;
};

template <class Done>
bool within(std::chrono::milliseconds time, Done done) {
  for (Deadline until = SteadyClock::now() + time; SteadyClock::now() < until;) {
    if (done()) return true;
    std::this_thread::sleep_for(2ms);
  }
  return done();
}

PeerMessage message_of(std::uint32_t group) { return {group, Go{Epoch{1}}, {}}; }

TEST(PeerConnectionsTest, TwoThatKnowEachOtherTalk) {
  End a(1, "secret"), b(2, "secret");
  EXPECT_FALSE(a.peers->send(MemberId{2}, message_of(7))) << "nobody is there yet";
  a.know(2, b);
  b.know(1, a);
  ASSERT_TRUE(within(10s, [&] { return a.connected == 1 && b.connected == 1; }));
  EXPECT_TRUE(a.peers->send(MemberId{2}, message_of(7)));
  EXPECT_TRUE(b.peers->send(MemberId{1}, message_of(8)));
  EXPECT_TRUE(within(10s, [&] { return a.heard == 8 && b.heard == 7; }));
}

TEST(PeerConnectionsTest, WhoDoesNotKnowTheSecretIsNotHeard) {
  for (const char* wrong : {"", "another"}) {
    End a(1, wrong), b(2, "secret");
    a.know(2, b);
    b.know(1, a);
    // It tries again and again, and never gets in.
    EXPECT_FALSE(within(500ms, [&] { return b.connected > 0; }));
    EXPECT_FALSE(b.peers->send(MemberId{1}, message_of(8)));
    (void)a.peers->send(MemberId{2}, message_of(7));
    EXPECT_FALSE(within(100ms, [&] { return b.heard != 0; }));
  }
}

TEST(PeerConnectionsTest, NodesOfAnotherClusterAreNotHeard) {
  End a(1, "secret", "one"), b(2, "secret", "two");
  a.know(2, b);
  b.know(1, a);
  EXPECT_FALSE(within(300ms, [&] { return a.connected + b.connected > 0; }));
}

// A guardian's call, and whether the other side ended it.
struct Guardian {
  Guardian(const End& to, std::uint64_t member, const std::string& secret, bool is_guardian = true,
           const std::string& cluster = "test") {
    PeerCall::Options options;
    options.address = "127.0.0.1:" + std::to_string(to.peers->port());
    options.cluster = cluster;
    options.node = "n1";
    options.member = MemberId{member};
    options.is_guardian = is_guardian;
    options.secret = secret;
    call = PeerCall::open(std::move(options));
  }
  // Answers when the other side has ended the connection.
  void say(const PeerMessage& message) {
    if (!call) return;
    Bytes frame;
    append_message(frame, message);
    (void)(*call)->send(frame);
    Result<PeerFrame> answer = (*call)->next(10s);
    while (answer) answer = (*call)->next(10s);
    EXPECT_EQ(answer.error().code(), Code::kIo) << answer.error().message();
  }
  Result<std::unique_ptr<PeerCall>> call;
};
PeerMessage release_of(std::uint64_t member) {
  return {5, Release{MemberId{member}, Epoch{3}}, {}};
}

TEST(PeerConnectionsTest, AGuardianIsHeardOfItsOwnMember) {
  End b(2, "secret");
  b.peers->set_peer({"n1", 1}, "127.0.0.1:1");
  Guardian(b, 1, "secret").say(release_of(1));
  EXPECT_EQ(b.heard, 5U);
  EXPECT_EQ(b.connected, 0) << "it is no connection of the node";
  b.heard = 0;
  Guardian(b, 1, "secret").say(release_of(2));
  Guardian(b, 1, "secret").say(release_of(3));
  Guardian(b, 1, "secret").say(message_of(7));
  Guardian(b, 9, "secret").say(release_of(9));  // nobody knows it
  Guardian(b, 1, "other").say(release_of(1));
  Guardian(b, 1, "").say(release_of(1));
  Guardian(b, 1, "secret", true, "another").say(release_of(1));
  EXPECT_EQ(b.heard, 0U);
  EXPECT_EQ(Guardian(b, 1, "other").call.has_value(), false);
}

TEST(PeerConnectionsTest, ANodeSaysNothingInAGuardiansPlace) {
  End b(2, "secret");
  b.peers->set_peer({"n1", 1}, "127.0.0.1:1");
  Guardian(b, 1, "secret", false).say(release_of(1));
  EXPECT_EQ(b.connected, 1);
  EXPECT_EQ(b.heard, 0U);
}

// A node that is called by this one: the guardian must not end that.
TEST(PeerConnectionsTest, AGuardianTakesNobodysPlace) {
  End a(1, "secret"), b(2, "secret");
  a.know(2, b);
  b.know(1, a);
  ASSERT_TRUE(within(10s, [&] { return a.connected == 1 && b.connected == 1; }));
  Guardian(a, 2, "secret").say(release_of(2));
  Guardian(b, 1, "secret").say(release_of(1));
  EXPECT_TRUE(a.peers->send(MemberId{2}, message_of(7)));
  EXPECT_TRUE(b.peers->send(MemberId{1}, message_of(8)));
  EXPECT_TRUE(within(10s, [&] { return a.heard == 8 && b.heard == 7; }));
  EXPECT_EQ(a.connected, 1);
  EXPECT_EQ(b.connected, 1);
}

TEST(PeerConnectionsTest, AConnectionIsMadeAgain) {
  End a(1, "secret");
  auto b = std::make_unique<End>(2, "secret");
  a.know(2, *b);
  b->know(1, a);
  ASSERT_TRUE(within(10s, [&] { return a.connected == 1; }));
  b = std::make_unique<End>(2, "secret");
  b->know(1, a);
  a.know(2, *b);
  ASSERT_TRUE(within(10s, [&] { return a.connected == 2 && b->connected == 1; }));
  EXPECT_TRUE(a.peers->send(MemberId{2}, message_of(9)));
  EXPECT_TRUE(within(10s, [&] { return b->heard == 9; }));
}

// Another node listens where it was; it is called again and again.
TEST(PeerConnectionsTest, AMemberThatIsNoMoreDisturbsNobody) {
  End a(1, ""), b(3, "");
  b.know(1, a);
  a.know(2, b);
  a.know(3, b);
  ASSERT_TRUE(within(10s, [&] { return a.connected == 1 && b.connected == 1; }));
  EXPECT_FALSE(within(1s, [&] { return a.connected + b.connected > 2; }));
  EXPECT_TRUE(a.peers->send(MemberId{3}, message_of(7)));
  EXPECT_TRUE(within(10s, [&] { return b.heard == 7; }));
}

TEST(PeerConnectionsTest, AnAddressThatIsNoneIsRefused) {
  for (const char* listen : {"nowhere", ":1", "127.0.0.1:", "127.0.0.1:99999999"}) {
    auto created = PeerConnections::create(
        {.cluster = "test", .self = {"n1", 1}, .listen = listen, .secret = {}});
    EXPECT_FALSE(created) << listen;
  }
}

}  // namespace
}  // namespace offprint::cluster
