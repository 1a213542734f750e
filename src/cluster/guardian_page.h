#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cluster/protocol.h"

namespace offprint::cluster {

// What a node leaves to its guardian, the process that outlives it: which member it was, in which
// epoch it acted last as primary, and where the other nodes are. Memory that two processes share:
// make it before the fork. The node writes; the guardian reads when the node is dead.
//
// Each state is written whole beside the one before, and then takes its place at once: whenever the
// node dies, one of the two is there. One whose checksum is wrong says nothing.
// Thread: any.
class GuardianPage {
 public:
  // kIo: no memory.
  static Result<std::unique_ptr<GuardianPage>> create();
  ~GuardianPage();

  // --- of the node
  // It is that member from now on, and nothing else is known.
  void begin(MemberId self);
  // See Effects::acts_in(): known before this returns.
  void acts_in(Epoch epoch);
  // Another node listens there for nodes. At most kPeersMax are kept.
  void know(const std::string& node, const std::string& peer_address);
  // Another node is primary: there is nothing to say.
  void rest();

  // --- of the guardian
  struct LastWords {
    MemberId member;
    Epoch epoch;  // not 0
    std::vector<std::string> peers;
  };
  // Nothing: it was never primary, or it is not known.
  std::optional<LastWords> read() const;

  static constexpr std::size_t kPeersMax = 32;

 private:
  friend struct GuardianPageProbe;                 // of tests
  static constexpr std::size_t kAddressMax = 263;  // a host's name, a port
  static constexpr std::size_t kFixed = 8 + 4 + 2;
  // member u64, epoch u32, count u16, for each peer {size u16, address}; big-endian.
  struct Slot {
    std::uint32_t size = 0;
    std::uint32_t checksum = 0;  // CRC-32C of the body
    std::uint8_t body[kFixed + kPeersMax * (2 + kAddressMax)] = {};
  };
  struct Shared {
    std::atomic<std::uint32_t> current = 0;  // 1 or 2: that slot; 0: nothing was said yet
    Slot slots[2];
  };

  explicit GuardianPage(Shared& shared) : shared_(shared) {}
  void write();

  Shared& shared_;
  std::mutex mutex_;
  // --- of the node, guarded by mutex_
  MemberId self_;
  Epoch epoch_;
  std::map<std::string, std::string> peers_;  // by node
};

}  // namespace offprint::cluster
