#pragma once

#include <atomic>
#include <deque>
#include <memory>

#include "database/store.h"
#include "feed/row_differences.h"
#include "feed/state_walk.h"
#include "feed/transaction.h"

namespace offprint::feed {

// Reads a database's transactions one after the other, as changes of rows. Thread: one at a time.
// Blocks. After an error it is of no use any more; kBehind, kNotFound: the log does not lead on
// from there.
class ChangeReader {
 public:
  struct Options {
    std::size_t transaction_bytes_max = 16 << 20;  // of more no rows are told
    // Memory of transactions that are alive; may be null.
    std::shared_ptr<std::atomic<std::size_t>> counter = nullptr;
  };
  // Whoever else wants to see a step: called with the walk between its two states.
  using OnStep = std::function<Result<>(StateWalk&)>;
  // Called before that, with the transaction.
  using OnRead = std::function<void(std::shared_ptr<const Transaction>)>;

  // From a state on. kBehind, kNotFound: it is too old, or of another history.
  static Result<std::unique_ptr<ChangeReader>> open(database::Store& store,
                                                    const database::DatabaseName& name,
                                                    const Bookmark& since, const Options& options);

  const Bookmark& position() const { return walk_->position(); }
  StateWalk& walk() { return *walk_; }
  // The next transaction; null: there is none yet.
  Result<std::shared_ptr<const Transaction>> next(const OnStep& on_step = {},
                                                  const OnRead& on_read = {});
  // Whether rows are looked at, from the position on: else transactions have none.
  Result<> want_rows(bool wanted);
  bool wants_rows() const { return differences_ != nullptr; }

 private:
  ChangeReader(database::Store& store, database::DatabaseName name, Options options)
      : store_(store), name_(std::move(name)), options_(std::move(options)) {}

  database::Store& store_;
  const database::DatabaseName name_;
  const Options options_;
  std::unique_ptr<StateWalk> walk_;
  std::unique_ptr<RowDifferences> differences_;  // null: rows are not wanted
  std::deque<database::LogEntry> entries_;       // that come next
};

}  // namespace offprint::feed
