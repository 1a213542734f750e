#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/clock.h"
#include "database/name.h"
#include "database/store.h"
#include "replica/stream_format.h"
#include "server/payload_cache.h"

namespace offprint::server {

// What of a database a stream wants.
struct FeedRequest {
  std::optional<Bookmark> from;               // follow from here on …
  bool snapshot = false;                      // … or from a snapshot that comes first
  std::optional<replica::PageHashes> hashes;  // only the pages that differ from these, then the end
  bool deltas = false;                        // the client understands replica::kDeltaEncoding
};

// The frames of one database on a stream, made when there is something to tell and the client takes
// it. docs/format/stream.md. Thread: one at a time. Errors become frames.
class StreamFeed {
 public:
  enum class State {
    kIdle,         // told everything; again after the next transaction
    kMore,         // there is more than `limit`
    kNeedsHelper,  // what comes next has to be read from a disk
    kEnded,        // the last frame of this database was made
  };

  // How old the databases here are, when they are copies; empty: they are not.
  using AgeOf = std::function<std::int64_t(const database::DatabaseName&)>;
  // The state of its source that an instance of a publication has reached, if that is known.
  using SourceOf = std::function<std::optional<Bookmark>(const database::DatabaseName&)>;
  // `age_of` and `source_of` must outlive it.
  StreamFeed(database::Store& store, PayloadCache& cache, database::DatabaseName name,
             std::uint32_t number, FeedRequest request, const AgeOf& age_of,
             const SourceOf& source_of);

  // Appends frames to `to`, whole ones, until it is about `limit` bytes long. Without `may_block`
  // it takes only what is in memory, or small and new enough to be in the page cache.
  State produce(Bytes& to, std::size_t limit, bool may_block);
  // Where the primary stands, if the feed is at the stage of telling that.
  void append_heartbeat(Bytes& to);
  void append_shutdown(Bytes& to);
  // The last frame: who follows may do so no longer, or it goes on no more.
  void append_refusal(Bytes& to, const std::string& why);
  // Everything up to there was told.
  const Bookmark& told() const { return last_; }
  bool ended() const { return stage_ == Stage::kEnded; }
  const database::DatabaseName& name() const { return name_; }
  // It has ended because the database is gone; there may be a new one of its name.
  bool is_dropped() const { return is_dropped_; }

 private:
  enum class Stage { kSnapshot, kStart, kFollow, kEnded };

  State produce_snapshot(Bytes& to, std::size_t limit);
  Result<> open_snapshot(Bytes& to);
  bool wanted(PageNo page, ByteView image) const;
  Result<> start(Bytes& to);
  State follow(Bytes& to, std::size_t limit, bool may_block);
  Result<State> append_entries(Bytes& to, std::size_t limit, bool may_block);
  Result<PayloadCache::MaybeDelta> delta_of(const database::LogEntry& entry, bool may_make);
  Result<> begin_large(Bytes& to, const database::LogEntry& entry);
  Result<> continue_large(Bytes& to, std::size_t limit);
  State end(Bytes& to, replica::EndReason reason, const std::string& text);
  State end_by(Bytes& to, const Error& error);

  database::Store& store_;
  PayloadCache& cache_;
  const AgeOf& age_of_;
  const SourceOf& source_of_;
  const database::DatabaseName name_;
  const std::uint32_t number_;
  FeedRequest request_;
  Stage stage_;
  bool is_dropped_ = false;
  Bookmark last_;                         // told so far
  std::optional<Position> snapshot_end_;  // where the snapshot that was sent stands

  std::unique_ptr<database::Snapshot> snapshot_;
  PageNo next_page_ = 1;
  bool difference_ = false;
  std::unique_ptr<ltx::ByteSource> large_;  // the transaction that is being sent in parts
  std::uint64_t large_left_ = 0;
};

}  // namespace offprint::server
