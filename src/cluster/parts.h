#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "base/clock.h"
#include "base/result.h"
#include "cluster/peer_wire.h"
#include "journal/journal.h"

// A transaction that is too large for one record goes through the log in parts: records of kind
// kPart, with others between them, and then the record that they belong to. So nobody waits for
// more than one part, and what brings records to all nodes brings these. docs/format/journal.md,
// "Parts".
namespace offprint::cluster {

// Parts that nobody goes on with for so long are left: their primary has died, for one.
inline constexpr std::chrono::minutes kPartsLeftAfter{10};

// Which part this is: metadata kPart.
struct PartName {
  std::uint64_t id = 0;  // random, of the whole
  std::uint32_t number = 0;

  journal::Metadata metadata() const;
  static std::optional<PartName> in(const std::vector<journal::Metadata>& metadata);
};
// Which parts a transaction's payload has: metadata kParts.
struct PartsName {
  std::uint64_t id = 0;
  std::uint32_t count = 0;
  Lsn first;               // the first part's record …
  std::uint64_t size = 0;  // bytes of all
  journal::Metadata metadata() const;
  static std::optional<PartsName> in(const std::vector<journal::Metadata>& metadata);
};

// On nodes that follow: parts become the file that the transaction's payload is on this node.
// Thread: one at a time; sync() any.
class Parts {
 public:
  explicit Parts(journal::Journal& journal) : journal_(journal) {}
  // It is in this node's journal.
  void take(const PeerRecord& part);
  // All parts taken are on the disk then. Blocks.
  void sync();
  void forget();
  // The payload, finished. `end`: the transaction's record. `find`: where records are that come
  // before it; nothing: not here any more. kNotFound: a part is not here, and never comes.
  using Find = std::function<std::optional<journal::Location>(Lsn)>;
  Result<std::shared_ptr<journal::LargePayload>> whole(const PartsName& name, Lsn end,
                                                       const Find& find);

 private:
  struct Arrival {
    std::shared_ptr<journal::LargePayload> payload;  // null: something failed
    std::uint32_t next = 0;
    Deadline touched;
  };
  Result<std::shared_ptr<journal::LargePayload>> read_again(const PartsName& name, Lsn end,
                                                            const Find& find);

  journal::Journal& journal_;
  std::mutex mutex_;
  std::map<std::uint64_t, Arrival> arrivals_;  // guarded by mutex_
};

}  // namespace offprint::cluster
