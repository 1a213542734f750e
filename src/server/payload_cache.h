#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>

#include "base/bytes.h"
#include "database/store.h"

namespace offprint::server {

// LTX files of the newest transactions, so that a thousand followers of one database cost one read
// of the journal. Thread: any.
class PayloadCache {
 public:
  using Payload = std::shared_ptr<const Bytes>;
  explicit PayloadCache(std::size_t bytes_max = 8 << 20) : bytes_max_(bytes_max) {}

  // The payload of a transaction in the log, read from the store when it is not here. Blocks then,
  // for a read of the journal that the page cache usually holds.
  Result<Payload> get(database::Store& store, const database::LogEntry& entry);
  // The same, only from memory; null when it is not here.
  Payload find(const database::LogEntry& entry);

 private:
  const std::size_t bytes_max_;
  std::mutex mutex_;
  std::map<std::uint64_t, Payload> by_lsn_;  // guarded by mutex_
  std::deque<std::uint64_t> order_;          // guarded by mutex_; oldest first
  std::size_t bytes_ = 0;                    // guarded by mutex_
};

}  // namespace offprint::server
