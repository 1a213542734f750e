#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "base/file_system.h"
#include "base/result.h"
#include "ltx/types.h"

namespace offprint::replica {

// What happens while following. All calls on the thread of run(); must be quick.
class FollowerEvents {
 public:
  struct Applied {
    Position position;               // of FILE now
    std::uint64_t transactions = 0;  // in this apply
    std::uint64_t bytes = 0;         // of page images in it
    std::int64_t lag_ms =
        0;  // since the last of them was committed, by both machines' clocks; never negative
    bool snapshot = false;  // reached by pages instead of transactions
  };
  virtual ~FollowerEvents() = default;
  // The stream began. `server`: name and version.
  virtual void connected(const std::string& server) { (void)server; }
  // Pages of a snapshot or of the differences, so far and in all (an estimate).
  virtual void snapshot_progress(std::uint64_t pages, std::uint64_t pages_total) {
    (void)pages, (void)pages_total;
  }
  virtual void applied(const Applied& applied) { (void)applied; }
  // Of an instance of a publication: what is applied next, and what is told of the primary, is of
  // this state of its source.
  virtual void source(const Bookmark& source) { (void)source; }
  // The primary's position, each second.
  virtual void heartbeat(const Position& primary, std::int64_t unix_ms) {
    (void)primary, (void)unix_ms;
  }
  // FILE has all that the primary had when we connected.
  virtual void caught_up(const Position& position) { (void)position; }
  // A scan of FILE against the position's checksum. False: a resync follows.
  virtual void verified(bool equal, const std::string& what) { (void)equal, (void)what; }
  // FILE must be compared page by page, and why.
  virtual void resync(const std::string& why) { (void)why; }
  // A transaction that came as a delta did not fit to FILE; it is fetched again as an LTX file.
  virtual void delta_refused(const std::string& why) { (void)why; }
  // Something failed; tried again after `retry_ms`.
  virtual void interrupted(const Error& error, int retry_ms) { (void)error, (void)retry_ms; }
  // A reader of FILE holds an old snapshot: FILE-wal cannot be shortened.
  virtual void pinned(std::uint64_t bytes) { (void)bytes; }
};

struct FollowerOptions {
  std::string url;  // http://HOST/db/NAME, with or without a slash at the end; https too
  std::string file;
  std::string token;    // sent as Authorization: Bearer; never stored
  std::string ca_file;  // PEM; empty: the system's certificates
  bool once = false;    // return when FILE has what the primary had when we connected
  bool verify = false;  // scan FILE when it has caught up first
  int connect_timeout_ms = 5'000;
  int silence_max_ms = 3'000;  // three heartbeats missed: connect again
  int answer_timeout_ms =
      60'000;                   // until the server begins to send, and between pages of a snapshot
  int retry_min_ms = 50;        // doubled at each failure, with jitter, …
  int retry_max_ms = 3'000;     // … up to this
  int busy_timeout_ms = 5'000;  // how long to wait for a program that holds FILE
  std::size_t memory_max =
      4 << 20;  // larger transactions go through a temporary file; as much is applied at once
  FileSystem* files = &FileSystem::real();
};

enum class FollowerOutcome { kStopped, kCaughtUp, kDropped };

// Keeps FILE a live copy of a database. Connects, receives whole transactions and applies them at
// once (all that wait as one), resyncs by page hashes when FILE or the history went another way,
// and connects again after any failure. Thread: run() on one; stop() from any, and from signal
// handlers.
class Follower {
 public:
  // `events` must outlive it. kInvalid: no such URL.
  static Result<std::unique_ptr<Follower>> create(FollowerOptions options, FollowerEvents& events);
  virtual ~Follower() = default;

  // Until stop(), the database is dropped, or (once) FILE caught up. Errors are those that trying
  // again cannot mend: kNotFound (no such database), kUnauthorized, kForbidden (the token's, or
  // FILE is not ours), kInvalid (a newer server or note), kIo, kCorrupt; and kUnavailable, kBusy,
  // kFull in once mode. Whatever it answers, FILE is a state of the primary.
  virtual Result<FollowerOutcome> run() = 0;
  virtual void stop() = 0;
};

}  // namespace offprint::replica
