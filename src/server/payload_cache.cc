#include "server/payload_cache.h"

#include "server/stream_delta.h"

namespace offprint::server {
namespace {

constexpr std::size_t kEntryBytes = 128;  // what one takes besides its payload

std::size_t size_of(const PayloadCache::Payload& payload) {
  return kEntryBytes + (payload ? payload->size() : 0);
}

}  // namespace

PayloadCache::MaybeDelta PayloadCache::find(const Key& key) {
  std::lock_guard lock(mutex_);
  auto found = payloads_.find(key);
  return found == payloads_.end() ? std::nullopt : MaybeDelta(found->second);
}

PayloadCache::Payload PayloadCache::find(const database::LogEntry& entry) {
  return find(Key{entry.location.lsn.value, false}).value_or(nullptr);
}

PayloadCache::MaybeDelta PayloadCache::find_delta(const database::LogEntry& entry) {
  return find(Key{entry.location.lsn.value, true});
}

void PayloadCache::keep(const Key& key, const Payload& payload) {
  if (size_of(payload) > bytes_max_ / 16) return;
  std::lock_guard lock(mutex_);
  if (!payloads_.emplace(key, payload).second) return;
  order_.push_back(key);
  bytes_ += size_of(payload);
  while (bytes_ > bytes_max_) {
    auto oldest = payloads_.find(order_.front());
    bytes_ -= size_of(oldest->second);
    payloads_.erase(oldest);
    order_.pop_front();
  }
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
  keep({entry.location.lsn.value, false}, payload);
  return payload;
}

Result<PayloadCache::Payload> PayloadCache::delta(database::Store& store,
                                                  const database::LogEntry& entry) {
  if (MaybeDelta cached = find_delta(entry)) return *cached;
  OFFPRINT_TRY_ASSIGN(Payload file, get(store, entry));
  OFFPRINT_TRY_ASSIGN(std::optional<Bytes> undo, store.undo(entry.location));
  Payload payload;
  if (auto made = undo ? make_delta(entry.epoch, *file, *undo) : std::nullopt;
      made && made->size() < file->size())
    payload = std::make_shared<const Bytes>(*std::move(made));
  keep({entry.location.lsn.value, true}, payload);
  return payload;
}

}  // namespace offprint::server
