#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "feed/database_feed.h"

namespace offprint::feed {

// A listener's place in a database's transactions. Thread: one at a time, but for cut_if_before().
class ChangeCursor {
 public:
  enum class State {
    kTransaction,  // take() has the next one
    kIdle,         // there is none yet
    kNeedsHelper,  // it has to be read from a disk
    kEnded,        // error() says why; kBehind, kNotFound: what comes next is not there any more
  };

  ChangeCursor(std::shared_ptr<DatabaseFeed> feed, const Bookmark& since)
      : feed_(std::move(feed)), position_(since) {}
  ~ChangeCursor() { drop_reader(); }

  // What was told; the next transaction follows on it.
  const Bookmark& position() const { return position_; }
  State next(bool may_block);
  // The transaction that comes next, until the following next(); null: it was taken away from a
  // listener who was too slow.
  std::shared_ptr<const Transaction> take();
  const Error& error() const { return *error_; }
  DatabaseFeed& feed() { return *feed_; }

  // Any thread: memory is scarce; a transaction that is held and older than that is let go.
  void cut_if_before(const Bookmark& position);

 private:
  State end(Error error);
  Result<> read_behind();
  void drop_reader();

  const std::shared_ptr<DatabaseFeed> feed_;
  Bookmark position_;
  std::optional<Error> error_;
  std::unique_ptr<ChangeReader> reader_;                 // of what the feed's memory does not have
  std::deque<std::shared_ptr<const Transaction>> read_;  // by it, and not told yet
  std::mutex mutex_;
  std::shared_ptr<const Transaction> current_;  // guarded by mutex_
};

}  // namespace offprint::feed
