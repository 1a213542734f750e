#include "database/journal_upkeep.h"

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"

namespace offprint::database {

void JournalUpkeep::start() {
  due_at_ = environment_.journal->end_lsn().value + environment_.options.journal.segment_size / 2;
}

void JournalUpkeep::run_if_due() {
  std::uint64_t end = environment_.journal->end_lsn().value;
  std::uint64_t due = due_at_.load(std::memory_order_relaxed);
  if (end < due) return;
  if (!due_at_.compare_exchange_strong(due, end + environment_.options.journal.segment_size / 2))
    return;
  environment_.helpers.post([this] { free_segments(); });
}

// Where the records begin that are within the log's limits.
journal::Lsn JournalUpkeep::over_limits(const std::vector<journal::Segment>& segments) {
  const StoreOptions& options = environment_.options;
  std::int64_t now = unix_time_ms();
  for (const auto& segment : segments) seen_ms_.emplace(segment.begin.value, now);
  std::uint64_t end = segments.back().end.value;
  journal::Lsn target = segments.front().begin;
  for (std::size_t i = 0; i + 1 < segments.size(); ++i) {
    bool too_much = end - segments[i].begin.value > options.log_bytes_max;
    bool too_old = now - seen_ms_[segments[i + 1].begin.value] > options.log_age_max_ms;
    if (too_much || too_old) target = segments[i + 1].begin;
  }
  return target;
}

void JournalUpkeep::hold(std::function<std::optional<journal::Lsn>()> needed_from) {
  std::lock_guard lock(mutex_);
  held_from_ = std::move(needed_from);
}

// What the archive does not have yet stays, but a journal that only grows would end all writes.
journal::Lsn JournalUpkeep::held(journal::Lsn target, journal::Lsn end) {
  std::optional<journal::Lsn> from = held_from_ ? held_from_() : std::nullopt;
  if (!from || *from >= target) {
    holds_too_much_ = false;
    return target;
  }
  std::uint64_t bytes_max = environment_.options.log_held_bytes_max;
  bool too_much = end.value - from->value > bytes_max;
  if (too_much && !std::exchange(holds_too_much_, true)) {
    log::error(
        "the archive is more than {} MiB behind: transactions leave the log before they are "
        "archived; moments between them cannot be restored",
        bytes_max >> 20);
  }
  return too_much ? target : *from;
}

void JournalUpkeep::free_segments() {
  std::lock_guard lock(mutex_);
  journal::Journal& journal = *environment_.journal;
  auto segments = journal.segments();
  if (segments.size() < 2) return;
  journal::Lsn target = over_limits(segments);
  target = held(target, segments.back().end);
  if (target <= segments.front().begin) return;
  Holders holders = find_holders_(target);
  target = std::min(target, holders.at_least);
  for (const auto& database : holders.databases) database->let_go_of(target);
  for (const auto& database : holders.databases) {
    if (auto needed = database->needed_from()) target = std::min(target, *needed);
  }
  CommonLog* common = environment_.options.common_log;
  if (common != nullptr) {  // what is not decided, or not taken yet
    if (auto needed = common->needed_from()) target = std::min(target, *needed);
  }
  journal::Lsn free_to = segments.front().begin;
  for (const auto& segment : segments) {
    if (segment.begin <= target) free_to = segment.begin;
  }
  if (auto synced = journal.wait_durable({journal.end_lsn(), 0, 0, false}); !synced) {
    return environment_.fatal(synced.error());
  }
  for (const auto& database : holders.databases) database->trim_log(free_to);
  if (common != nullptr) common->forget_before(free_to);
  if (auto removed = journal.remove_before(free_to); !removed) {
    log::warn("freeing journal segments: {}", removed.error().message());
  }
  seen_ms_.erase(seen_ms_.begin(), seen_ms_.lower_bound(free_to.value));
}

}  // namespace offprint::database
