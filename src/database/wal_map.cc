#include "database/wal_map.h"

#include <algorithm>

namespace offprint::database {
namespace {

constexpr std::size_t kGenerationsKept = 2;

}  // namespace

void WalMap::reset(TxId opened_at) {
  generations_.clear();
  generations_.push_back({{}, opened_at, {}});  // a -wal without a header
  newest_ = opened_at;
  has_commits_ = false;
  ++opened_;
}

void WalMap::add(const sqlite::WalPoint& point, TxId txid) {
  if (!generations_.back().point.same_generation(point)) {
    generations_.push_back({point, newest_, {}});
    ++generation_;
    if (generations_.size() > kGenerationsKept) generations_.erase(generations_.begin());
  }
  auto& entries = generations_.back().entries;
  if (!entries.empty() && entries.back().frame == point.frame) entries.pop_back();
  entries.push_back({point.frame, txid});
  newest_ = txid;
  has_commits_ = true;
}

std::optional<TxId> WalMap::find(const sqlite::WalPoint& point) const {
  for (auto generation = generations_.rbegin(); generation != generations_.rend(); ++generation) {
    if (!generation->point.same_generation(point)) continue;
    if (point.frame == 0) return generation->before;
    const auto& entries = generation->entries;
    auto found = std::lower_bound(
        entries.begin(), entries.end(), point.frame,
        [](const Entry& entry, std::uint32_t frame) { return entry.frame < frame; });
    if (found != entries.end() && found->frame == point.frame) return found->txid;
    // Frames that were there when the files were opened belong to the state before the first commit
    // of ours.
    if (found == entries.begin()) return generation->before;
    return std::nullopt;
  }
  // A generation without a commit of ours: the -wal as it was when the files were opened, or one
  // that was restarted and has nothing in it yet. Either way no commit came after the newest one.
  if (!has_commits_ || point.frame == 0) return newest_;
  return std::nullopt;
}

std::optional<TxId> WalMap::covered_since(const Stage& before, std::uint32_t done,
                                          std::uint32_t frames) const {
  if (opened_ != before.opened) return std::nullopt;  // those files were left meanwhile
  bool complete = done == frames;
  if (generation_ == before.generation) return covered(done, complete);
  // A -wal starts anew only when all of it is in the file, fsynced. The first commit since the
  // files were opened proves no new start: it may stand behind frames that were there.
  if (before.has_commits || complete) return before.newest;
  return std::nullopt;
}

// The newest transaction whose commit is within the first `frames` of the current generation. None
// is: the state at the generation's start when the whole -wal is meant (`all`), else nothing.
std::optional<TxId> WalMap::covered(std::uint32_t frames, bool all) const {
  const Generation& current = generations_.back();
  std::optional<TxId> covered;
  if (all) covered = current.before;
  for (const Entry& entry : current.entries) {
    if (entry.frame > frames) break;
    covered = entry.txid;
  }
  return covered;
}

std::uint32_t WalMap::frames() const {
  return generations_.back().entries.empty() ? 0 : generations_.back().entries.back().frame;
}

}  // namespace offprint::database
