#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "cluster/protocol.h"
#include "journal/journal.h"

// What the nodes of a cluster send each other, as bytes: frames of many groups on one connection.
// Format: docs/protocol/cluster.md. Nothing here does I/O.
namespace offprint::cluster {

inline constexpr std::uint8_t kPeerVersion = 1;
inline constexpr std::size_t kPeerHeaderSize = 12;
// No frame's body is larger; a reader refuses what claims to be.
inline constexpr std::size_t kPeerBodyMax = 48 << 20;
// Writers leave further records to the next frame beyond this.
inline constexpr std::size_t kPeerBodyTarget = 1 << 20;

// First on every connection, from both sides. A node that is nobody yet (member 0) wants to be
// filled. A guardian calls in the name of the member whose process died, and says nothing but its
// Release.
struct PeerHello {
  std::uint8_t version = kPeerVersion;  // the newest that the sender speaks
  std::string cluster;
  std::string node;
  MemberId member;
  Bytes nonce;               // random, kPeerNonceSize
  bool is_guardian = false;  // of the member: a frame of its own kind
  bool operator==(const PeerHello&) const = default;
};
inline constexpr std::size_t kPeerNonceSize = 32;

// After the other side's hello, where the cluster has a secret: the sender knows it.
struct PeerProof {
  Bytes mac;
};
// HMAC-SHA-256 of the sender's hello and the other side's nonce.
Bytes proof_of(const std::string& secret, const PeerHello& sender, const PeerHello& other);

// A record of a group's log as it goes into the journal of each member.
struct PeerRecord {
  journal::Kind kind = journal::Kind::kTransaction;
  std::uint64_t database_id = 0;
  std::vector<journal::Metadata> metadata;
  Bytes payload;
};

// A message of a group, with the records of an Append: one for each number in its runs.
struct PeerMessage {
  std::uint32_t group = 0;
  Message message;
  std::vector<PeerRecord> records;
};

// --- To a node that is being filled, in this order; after kDatabase come its kPages.
// The log goes on after `lsn`, whatever of the databases is newer.
struct FillBegin {
  Lsn lsn;
  Epoch epoch;     // in which that record was written
  Epoch promised;  // of the primary
  bool operator==(const FillBegin&) const = default;
};
struct FillDatabase {
  std::uint64_t id = 0;
  Bytes state;  // database::DatabaseState, encoded
  bool operator==(const FillDatabase&) const = default;
};
// Whole pages of it, ascending.
struct FillPages {
  Bytes images;
  bool operator==(const FillPages&) const = default;
};
// Of those that came, these are the databases; others were dropped meanwhile.
struct FillEnd {
  std::vector<std::uint64_t> databases;
  bool operator==(const FillEnd&) const = default;
};
// Not here, or not now. The connection ends.
struct FillRefusal {
  std::string why;
  bool operator==(const FillRefusal&) const = default;
};
using FillFrame = std::variant<FillBegin, FillDatabase, FillPages, FillEnd, FillRefusal>;

using PeerFrame = std::variant<PeerHello, PeerProof, PeerMessage, FillFrame>;

// Append one frame to `to`. A message's body must stay within kPeerBodyMax.
void append_hello(Bytes& to, const PeerHello& hello);
void append_proof(Bytes& to, const PeerProof& proof);
void append_message(Bytes& to, const PeerMessage& message);
void append_fill(Bytes& to, const FillFrame& fill);
// What the record adds to a frame.
std::size_t wire_size(const PeerRecord& record);

// Takes the bytes of a connection in pieces of any size. Thread: one.
class PeerFrameReader {
 public:
  void add(ByteView bytes) { buffer_.insert(buffer_.end(), bytes.begin(), bytes.end()); }
  // The next frame; nothing: more bytes are needed. kCorrupt: these are no frames, or they were
  // damaged; kInvalid: of a newer version. After an error the connection is of no use.
  Result<std::optional<PeerFrame>> next();

 private:
  Bytes buffer_;
  std::size_t read_ = 0;
};

}  // namespace offprint::cluster
