#pragma once

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
  // The commit whose last frame is `point.frame` is `txid` (of several applied as one: the last).
  void add(const sqlite::WalPoint& point, TxId txid);
  // Nothing: not a state that this map knows (another program wrote the file).
  std::optional<TxId> find(const sqlite::WalPoint& point) const;
  // To be taken before a checkpoint, which runs beside commits.
  struct Stage {
    std::uint64_t opened = 0;
    std::uint64_t generation = 0;
    bool has_commits = false;
    TxId newest;
  };
  Stage stage() const { return {opened_, generation_, has_commits_, newest_}; }
  // What a checkpoint that began at `before` has surely brought into the file, when it answered
  // that `done` of the -wal's `frames` are there.
  std::optional<TxId> covered_since(const Stage& before, std::uint32_t done,
                                    std::uint32_t frames) const;
  // Counts generations.
  std::uint64_t generation() const { return generation_; }
  // Frames of the newest commit in the current generation.
  std::uint32_t frames() const;

 private:
  std::optional<TxId> covered(std::uint32_t frames, bool all) const;

  struct Entry {
    std::uint32_t frame;
    TxId txid;
  };
  struct Generation {
    sqlite::WalPoint point;  // its salts
    TxId before;             // the state at its start
    std::vector<Entry> entries;
  };
  std::vector<Generation> generations_ = {Generation{}};  // newest last, never empty
  TxId newest_;
  bool has_commits_ = false;  // since reset
  std::uint64_t generation_ = 0;
  std::uint64_t opened_ = 0;  // counts resets
};

}  // namespace offprint::database
