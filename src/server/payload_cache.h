#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "base/bytes.h"
#include "database/store.h"

namespace offprint::server {

// The newest transactions as they are sent, as LTX files and as deltas, so that a thousand
// followers of one database cost one read of the journal and one delta. Thread: any.
class PayloadCache {
 public:
  using Payload = std::shared_ptr<const Bytes>;
  // Nothing: not known. Null: there is none.
  using MaybeDelta = std::optional<Payload>;
  explicit PayloadCache(std::size_t bytes_max = 8 << 20) : bytes_max_(bytes_max) {}

  // The LTX file of a transaction in the log, read from the store when it is not here. Blocks then,
  // for a read of the journal that the page cache usually holds.
  Result<Payload> get(database::Store& store, const database::LogEntry& entry);
  // The same, only from memory; null when it is not here.
  Payload find(const database::LogEntry& entry);

  // The transaction as replica::encode_delta() makes it; null when that is not possible (the log
  // does not know its former pages, it is too large) or not smaller. Blocks as get(), and computes
  // for about 20 µs a page, when it is not here. Not for those whose payload is a file.
  Result<Payload> delta(database::Store& store, const database::LogEntry& entry);
  MaybeDelta find_delta(const database::LogEntry& entry);

 private:
  using Key = std::pair<std::uint64_t, bool>;  // the record, whether as a delta
  MaybeDelta find(const Key& key);
  void keep(const Key& key, const Payload& payload);

  const std::size_t bytes_max_;
  std::mutex mutex_;
  std::map<Key, Payload> payloads_;  // guarded by mutex_
  std::deque<Key> order_;            // guarded by mutex_; oldest first
  std::size_t bytes_ = 0;            // guarded by mutex_
};

}  // namespace offprint::server
