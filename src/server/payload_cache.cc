#include "server/payload_cache.h"

namespace offprint::server {

PayloadCache::Payload PayloadCache::find(const database::LogEntry& entry) {
  std::lock_guard lock(mutex_);
  auto found = by_lsn_.find(entry.location.lsn.value);
  return found == by_lsn_.end() ? nullptr : found->second;
}

Result<PayloadCache::Payload> PayloadCache::get(database::Store& store,
                                                const database::LogEntry& entry) {
  if (Payload cached = find(entry)) return cached;
  OFFPRINT_TRY_ASSIGN(auto source, store.open_payload(entry.location));
  Bytes bytes(entry.location.payload_size);
  OFFPRINT_TRY_ASSIGN(std::size_t size, source->read(bytes));
  if (size != bytes.size())
    return fail(Code::kCorrupt, "a transaction in the journal is shorter than it must be");
  auto payload = std::make_shared<const Bytes>(std::move(bytes));
  if (payload->size() > bytes_max_ / 16) return payload;
  std::lock_guard lock(mutex_);
  if (!by_lsn_.emplace(entry.location.lsn.value, payload).second) return payload;
  order_.push_back(entry.location.lsn.value);
  bytes_ += payload->size();
  while (bytes_ > bytes_max_) {
    auto oldest = by_lsn_.find(order_.front());
    bytes_ -= oldest->second->size();
    by_lsn_.erase(oldest);
    order_.pop_front();
  }
  return payload;
}

}  // namespace offprint::server
