#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "base/result.h"
#include "database/store.h"
#include "server/hrana.h"

namespace offprint::server {

// A secret of the data directory, made at the first start: what it signs is recognised after a
// restart.
using StreamKey = std::array<std::uint8_t, 32>;
Result<StreamKey> load_stream_key(FileSystem& files, const std::string& path);

// What a client stream left on the server between two of its requests.
struct PinnedStream {
  std::shared_ptr<database::HeldTransaction> held;  // its open transaction
  hrana::StoredSql stored;
  bool empty() const { return !held && stored.empty(); }
};

// The streams of Hrana's clients. Most are stateless: nothing is kept, and their baton is taken at
// any time, also after a restart. A stream with an open transaction or stored SQL is pinned: its
// state waits here under its id. docs/protocol/hrana.md, "Streams". Thread: any.
class ClientStreams {
 public:
  struct Options {
    std::size_t pinned_max = 10'000;
    std::size_t stored_bytes_max = 64 << 20;  // of all streams together
    int idle_ms = 300'000;                    // a pinned stream is forgotten after this
  };
  ClientStreams(const StreamKey& key, const Options& options) : key_(key), options_(options) {}

  // A stream as a request finds it. A default one is new; it gets its id when it is first put.
  struct Stream {
    std::uint64_t id = 0;
    std::uint32_t sequence = 0;
    PinnedStream state;
  };
  // Goes on with one; its state is taken out and waits for put(). kInvalid: no baton of ours, of
  // another database, or one that was used before. kNotFound: its state is gone (STREAM_EXPIRED, or
  // TRANSACTION_TIMEOUT when it had an open transaction).
  Result<Stream> take(std::string_view baton, std::string_view database);
  // Keeps a stream for its next request; returns the baton. kBusy when too many are pinned (the
  // transaction in `stream` is then to be released by the caller).
  Result<std::string> put(Stream& stream, std::string_view database);

  // A secret for something else, which nobody can tell from the first one.
  StreamKey derived_key(std::string_view purpose) const;

  std::size_t pinned_count() const { return pinned_count_.load(std::memory_order_relaxed); }
  // Streams idle for longer than options.idle_ms are dropped; returns their transactions.
  std::vector<std::shared_ptr<database::HeldTransaction>> expire(Deadline now);

 private:
  enum class Kind : std::uint8_t { kStateless = 1, kPinned = 2, kInTransaction = 3 };
  struct Entry {
    std::uint32_t sequence = 0;
    PinnedStream state;
    std::size_t stored_bytes = 0;
    Deadline expires;
    std::list<std::uint64_t>::iterator order;
  };

  std::string sign(Kind kind, std::uint64_t id, std::uint32_t sequence,
                   std::string_view database) const;
  void forget(std::unordered_map<std::uint64_t, Entry>::iterator entry);

  const StreamKey key_;
  const Options options_;
  mutable std::mutex mutex_;
  std::unordered_map<std::uint64_t, Entry> pinned_;  // guarded by mutex_
  std::list<std::uint64_t> order_;                   // guarded by mutex_; oldest first
  std::atomic<std::size_t> pinned_count_{0};
  std::size_t stored_bytes_ = 0;  // guarded by mutex_
};

}  // namespace offprint::server
