#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "ltx/types.h"
#include "sqlite/capture.h"

namespace offprint::database {

// Which transaction a state of the -wal is: a read learns the txid of its own snapshot from here.
// Entries are added before SQLite publishes the commit, so every snapshot that a reader can hold is
// known; the current and the previous generation of the -wal are kept. Thread: guarded by the
// owner.
class WalMap {
 public:
  // `opened_at`: the state of the files when they were opened, before any commit of ours.
  void reset(TxId opened_at);
  // The commit whose last frame is `point.frame` is `txid`.
  void add(const sqlite::WalPoint& point, TxId txid);
  // Nothing: not a state that this map knows (another program wrote the file).
  std::optional<TxId> find(const sqlite::WalPoint& point) const;
  // The newest transaction whose commit is within the first `frames` of the current generation.
  // None is: the state at the generation's start when the whole -wal is meant (`all`), else
  // nothing.
  std::optional<TxId> covered(std::uint32_t frames, bool all) const;
  TxId newest() const { return newest_; }
  // A commit was added since reset. Before that nothing is known of the -wal's generation: it may
  // have frames.
  bool has_commits() const { return has_commits_; }
  // Counts the times that the -wal surely started anew since reset.
  std::uint64_t generation() const { return generation_; }
  // Frames of the newest commit in the current generation.
  std::uint32_t frames() const;

 private:
  struct Entry {
    std::uint32_t frame;
    TxId txid;
  };
  struct Generation {
    sqlite::WalPoint point;  // its salts
    TxId before;             // the state at its start
    std::vector<Entry> entries;
  };
  std::deque<Generation> generations_ = {Generation{}};  // newest last, never empty
  TxId newest_;
  bool has_commits_ = false;  // since reset
  std::uint64_t generation_ = 0;
};

}  // namespace offprint::database
