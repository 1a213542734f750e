#include "cluster/peer_wire.h"

#include <random>

#include <gtest/gtest.h>

namespace offprint::cluster {
namespace {

Bytes random_bytes(std::mt19937_64& random, std::size_t size_max) {
  Bytes bytes(random() % (size_max + 1));
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

PeerRecord random_record(std::mt19937_64& random) {
  PeerRecord record;
  record.kind = static_cast<journal::Kind>(1 + random() % 3);
  record.database_id = random();
  for (std::uint64_t left = random() % 4; left > 0; --left) {
    record.metadata.push_back(
        {static_cast<journal::MetadataType>(random() % 1000), random_bytes(random, 50)});
  }
  record.payload = random_bytes(random, 300);
  return record;
}

PeerMessage random_message(std::mt19937_64& random) {
  PeerMessage message;
  message.group = static_cast<std::uint32_t>(random());
  auto epoch = [&] { return Epoch{static_cast<std::uint32_t>(random() % 100)}; };
  switch (random() % 5) {
    case 0: {
      Append append;
      append.sent_at = Time{static_cast<std::int64_t>(random() >> 1)};
      append.start = Lsn{random()};
      append.previous = Lsn{random() >> 8};
      append.previous_epoch = append.epoch = epoch();
      append.commit = Lsn{random()};
      std::uint64_t at = append.previous.value;
      for (std::uint64_t left = random() % (kRunsMax + 1); left > 0; --left) {
        std::uint64_t count = 1 + random() % 3;
        append.epoch.value += static_cast<std::uint32_t>(random() % 3);
        append.runs.push_back({append.epoch, Lsn{at + 1}, Lsn{at + count}});
        at += count;
        for (; count > 0; --count) message.records.push_back(random_record(random));
      }
      message.message = append;
      break;
    }
    case 1:
      message.message = Ack{epoch(), Time{7}, Lsn{random()}};
      break;
    case 2:
      message.message =
          Nack{static_cast<Nack::Reason>(random() % 4), epoch(), Lsn{random()}, epoch()};
      break;
    case 3:
      message.message = Go{epoch()};
      break;
    default:
      message.message = Release{MemberId{random()}, epoch()};
  }
  return message;
}

// Equal messages have equal bytes.
Bytes bytes_of(const PeerMessage& message) {
  Bytes bytes;
  append_message(bytes, message);
  return bytes;
}

TEST(PeerWireTest, WhatIsSentArrivesInPiecesOfAnySize) {
  std::mt19937_64 random(3);
  PeerHello hello{.cluster = "main", .node = "n1", .member = MemberId{77}, .nonce = Bytes(32, 5)};
  for (int round = 0; round < 200; ++round) {
    hello.is_guardian = round % 2 == 1;
    std::vector<PeerMessage> sent;
    Bytes wire;
    append_hello(wire, hello);
    for (std::uint64_t left = random() % 6; left > 0; --left) {
      sent.push_back(random_message(random));
      append_message(wire, sent.back());
    }
    PeerFrameReader reader;
    std::size_t at = 0;
    std::vector<PeerFrame> received;
    while (at < wire.size()) {
      std::size_t piece = std::min<std::size_t>(1 + random() % 200, wire.size() - at);
      reader.add(ByteView(wire).subspan(at, piece));
      at += piece;
      for (;;) {
        auto frame = reader.next();
        ASSERT_TRUE(frame) << frame.error().message();
        if (!*frame) break;
        received.push_back(**std::move(frame));
      }
    }
    ASSERT_EQ(received.size(), sent.size() + 1);
    EXPECT_EQ(std::get<PeerHello>(received[0]), hello);
    for (std::size_t i = 0; i < sent.size(); ++i)
      EXPECT_EQ(bytes_of(std::get<PeerMessage>(received[i + 1])), bytes_of(sent[i]));
  }
}

TEST(PeerWireTest, PartsOfAFillArriveAsTheyWere) {
  const std::vector<FillFrame> sent{FillBegin{Lsn{9}, Epoch{3}, Epoch{4}},
                                    FillDatabase{77, Bytes(153, 1)}, FillPages{Bytes(8192, 5)},
                                    FillEnd{{0, 77, 1'000'000}}, FillRefusal{"not here"}};
  PeerFrameReader reader;
  for (const FillFrame& each : sent) {
    Bytes wire;
    append_fill(wire, each);
    reader.add(wire);
    auto frame = reader.next();
    ASSERT_TRUE(frame && *frame);
    EXPECT_EQ(std::get<FillFrame>(**frame), each);
    wire.back() ^= 1;
    PeerFrameReader damaged;
    damaged.add(wire);
    EXPECT_FALSE(damaged.next());
  }
}

TEST(PeerWireTest, AProofIsOfBothHellosAndTheSecret) {
  PeerHello a{.cluster = "main", .node = "n1", .member = MemberId{1}, .nonce = Bytes(32, 1)};
  PeerHello b{.cluster = "main", .node = "n2", .member = MemberId{2}, .nonce = Bytes(32, 2)};
  Bytes proof = proof_of("secret", a, b);
  EXPECT_EQ(proof.size(), 32U);
  EXPECT_EQ(proof, proof_of("secret", a, b));
  EXPECT_NE(proof, proof_of("Secret", a, b));
  EXPECT_NE(proof, proof_of("secret", b, a)) << "what the other side sent proves nothing";
  PeerHello again = b;
  again.nonce[31] ^= 1;
  EXPECT_NE(proof, proof_of("secret", a, again)) << "an old proof proves nothing";
  PeerHello somebody = a;
  somebody.member = MemberId{3};
  EXPECT_NE(proof, proof_of("secret", somebody, b));
  PeerHello guardian = a;
  guardian.is_guardian = true;
  EXPECT_NE(proof, proof_of("secret", guardian, b)) << "a node's proof makes no guardian";
}

TEST(PeerWireTest, ASingleFlippedBitIsSeen) {
  std::mt19937_64 random(4);
  for (int round = 0; round < 50; ++round) {
    Bytes wire = bytes_of(random_message(random));
    for (std::size_t i = 0; i < wire.size(); ++i) {
      Bytes damaged = wire;
      damaged[i] ^= static_cast<std::uint8_t>(1U << random() % 8);
      PeerFrameReader reader;
      reader.add(damaged);
      auto frame = reader.next();
      // A length that is too large waits for more; everything else is refused.
      if (i < 4 && frame) {
        EXPECT_FALSE(*frame);
      } else {
        EXPECT_FALSE(frame) << "byte " << i;
      }
    }
  }
}

TEST(PeerWireTest, NewerVersionsAreToldFromDamage) {
  Bytes wire = bytes_of({.group = 1, .message = Go{Epoch{1}}, .records = {}});
  wire[8] = kPeerVersion + 1;
  PeerFrameReader reader;
  reader.add(wire);
  auto frame = reader.next();
  ASSERT_FALSE(frame);
  EXPECT_EQ(frame.error().code(), Code::kInvalid);
  EXPECT_NE(frame.error().message().find("newer"), std::string::npos);
}

// As docs/protocol/cluster.md has it: what another version says is understood.
TEST(PeerWireTest, AGuardiansHelloIsAKindOfItsOwn) {
  PeerHello hello{.cluster = "main", .node = "n1", .member = MemberId{77}, .nonce = Bytes(32, 5)};
  Bytes nodes, guardians;
  append_hello(nodes, hello);
  hello.is_guardian = true;
  append_hello(guardians, hello);
  EXPECT_EQ(nodes[9], 1);
  EXPECT_EQ(guardians[9], 13);
  EXPECT_TRUE(std::equal(nodes.begin() + 10, nodes.end(), guardians.begin() + 10, guardians.end()));
  const Bytes release = bytes_of({3, Release{MemberId{77}, Epoch{5}}, {}});
  EXPECT_EQ(to_hex(ByteView(release).subspan(8)), "0106000000000003000000000000004d00000005");
}

// The bytes of docs/protocol/cluster.md.
TEST(PeerWireTest, TheExampleOfThePage) {
  PeerMessage message;
  message.group = 3;
  Append append;
  append.epoch = append.previous_epoch = Epoch{5};
  append.sent_at = Time{0x1234};
  append.start = Lsn{9};
  append.previous = Lsn{10};
  append.commit = Lsn{10};
  append.runs.push_back({Epoch{5}, Lsn{11}, Lsn{11}});
  message.message = append;
  message.records.push_back({journal::Kind::kTransaction, 2, {}, {'h', 'i'}});
  EXPECT_EQ(wire_size(message.records[0]), 17U);
  EXPECT_EQ(to_hex(bytes_of(message)),
            "0000004a82cfa78b01020000"
            "00000003"
            "00000005"
            "0000000000001234"
            "0000000000000009"
            "000000000000000a"
            "00000005"
            "000000000000000a"
            "01"
            "00000005000000000000000b"
            "0100000000000000020000000000026869");
}

}  // namespace
}  // namespace offprint::cluster
