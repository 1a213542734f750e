// Earlier states of a hosted database: finding them, reading them, making them the newest again.
#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "database/hosted_database.h"
#include "database/past_snapshot.h"
#include "database/replay.h"
#include "database/touched_tables.h"
#include "database/undo.h"
#include "ltx/checksum.h"
#include "ltx/page_delta.h"

namespace offprint::database {
namespace {

using Decision = TransactionRecorder::Decision;

constexpr std::size_t kChangeCounterOffset = 24;    // of page 1, and the same number again …
constexpr std::size_t kVersionValidForOffset = 92;  // … here: SQLite believes page counts then

// Page 1 as a rewrite carries it: no reader has met its schema cookie.
void raise_counters(std::span<std::uint8_t> page_one, ByteView header_before) {
  auto raised = [&](std::size_t offset) {
    return std::max(load_be<std::uint32_t>(page_one.data() + offset),
                    load_be<std::uint32_t>(header_before.data() + offset)) +
           1;
  };
  store_be<std::uint32_t>(page_one.data() + sqlite::kSchemaCookieOffset,
                          raised(sqlite::kSchemaCookieOffset));
  const std::uint32_t counter = raised(kChangeCounterOffset);
  store_be<std::uint32_t>(page_one.data() + kChangeCounterOffset, counter);
  store_be<std::uint32_t>(page_one.data() + kVersionValidForOffset, counter);
}

// Whether page 1, as a transaction carries it, has another schema cookie than it had before.
Result<bool> changes_cookie(const journal::Record& record, ByteView page_one) {
  const Bytes* bytes = find_metadata(record, journal::MetadataType::kUndo);
  if (bytes == nullptr || page_one.empty()) return false;
  OFFPRINT_TRY_ASSIGN(Undo undo, read_undo(*bytes));
  auto former = std::ranges::find(undo.pages, PageNo{1}, &Undo::Page::number);
  if (former == undo.pages.end()) return false;
  Bytes before(page_one.size());
  OFFPRINT_TRY(ltx::apply_page_delta(page_one, former->delta, before));
  return load_be<std::uint32_t>(before.data() + sqlite::kSchemaCookieOffset) !=
         load_be<std::uint32_t>(page_one.data() + sqlite::kSchemaCookieOffset);
}

// What differs between a database and what it is to become, on its way into a transaction.
class Rewriting {
 public:
  Rewriting(PageReader& now, Snapshot& to, const DatabaseState& before, DatabaseState& next,
            ltx::ByteSink& sink, std::size_t undo_bytes_max)
      : now_(now),
        to_(to),
        before_(before),
        next_(next),
        encoder_(sink),
        undo_(before.page_count, undo_bytes_max),
        checksum_(before.position.checksum) {}

  Result<> run() {
    ltx::Header header;
    header.page_size = next_.page_size;
    header.page_count = next_.page_count;
    header.min_txid = header.max_txid = next_.position.txid;
    header.timestamp_ms = next_.timestamp_ms;
    header.pre_apply = before_.position.checksum;
    OFFPRINT_TRY(encoder_.begin(header));
    const PageNo lock = ltx::lock_page(next_.page_size);
    for (PageNo page = 1; page <= std::max(before_.page_count, next_.page_count); ++page) {
      if (page != lock) OFFPRINT_TRY(take(page));
    }
    // What it becomes was proven once: what it became by these pages has to be the same.
    Checksum wanted = ltx::toggle(to_.position().checksum, page_one_as_it_was_);
    wanted = ltx::toggle(wanted, page_one_as_it_becomes_);
    if (checksum_ != wanted)
      return fail(Code::kCorrupt, "the earlier state's pages do not add up to its checksum");
    next_.position.checksum = checksum_;
    OFFPRINT_TRY(encoder_.finish(checksum_));
    return {};
  }

  std::optional<Bytes> undo() { return undo_.finish(); }

 private:
  Result<> take(PageNo page) {
    Bytes& fresh = fresh_;
    fresh.clear();
    if (page <= next_.page_count) {
      OFFPRINT_TRY_ASSIGN(ByteView image, to_.page(page));
      fresh.assign(image.begin(), image.end());
    }
    if (page == 1) {
      page_one_as_it_was_ = ltx::page_checksum(1, fresh);
      raise_counters(fresh, before_.header);
      page_one_as_it_becomes_ = ltx::page_checksum(1, fresh);
      std::copy_n(fresh.begin(), next_.header.size(), next_.header.begin());
    }
    if (page <= before_.page_count) {
      OFFPRINT_TRY_ASSIGN(ByteView image, now_.page(page));
      old_.assign(image.begin(), image.end());
      if (page == 1) std::copy(before_.header.begin(), before_.header.end(), old_.begin());
      if (old_ == fresh) return {};
      checksum_ = ltx::toggle(checksum_, ltx::page_checksum(page, old_));
      undo_.add(page, old_, fresh);
    }
    if (fresh.empty()) return {};
    checksum_ = ltx::toggle(checksum_, ltx::page_checksum(page, fresh));
    return encoder_.page(page, fresh);
  }

  PageReader& now_;
  Snapshot& to_;
  const DatabaseState& before_;
  DatabaseState& next_;
  ltx::Encoder encoder_;
  UndoWriter undo_;
  Checksum checksum_;
  Checksum page_one_as_it_was_, page_one_as_it_becomes_;
  Bytes old_, fresh_;
};

}  // namespace

// Of a fork: a state that it has in common with its parent.
bool HostedDatabase::is_shared(const Bookmark& bookmark) const {
  return std::ranges::any_of(identity_.ancestors, [&](const Bookmark& shared) {
    return shared.lineage == bookmark.lineage && bookmark.txid <= shared.txid;
  });
}

Result<Bookmark> HostedDatabase::bookmark_at(std::int64_t time_ms) {
  std::lock_guard lock(mutex_);
  const Lineage& lineage = state_.position.lineage;
  if (visible_.txid.value != 0 && visible_ == state_.position && time_ms >= state_.timestamp_ms)
    return visible_.bookmark();
  auto later = std::upper_bound(
      log_.begin(), log_.end(), time_ms,
      [](std::int64_t time, const LogEntry& entry) { return time < entry.timestamp_ms; });
  if (later != log_.begin()) {
    const LogEntry& found = *std::prev(later);
    if (found.txid > visible_.txid) return visible_.bookmark();
    return Bookmark{found.epoch, found.txid, lineage};
  }
  if (visible_.txid.value == 0 || (!log_.empty() && log_.front().txid.value == 1))
    return fail(Code::kNotFound, "the database had no content at " + format_rfc3339(time_ms));
  return fail(Code::kBehind, "the log does not reach back to that time");
}

Result<std::unique_ptr<Snapshot>> HostedDatabase::snapshot_at(const Bookmark& at) {
  if (at.txid.value == 0) return fail(Code::kNotFound, "the database had no content then");
  OFFPRINT_TRY_ASSIGN(auto newest, snapshot());
  OFFPRINT_TRY_ASSIGN(auto undone, log_after(at, std::numeric_limits<std::size_t>::max()));
  const TxId reached = newest->position().txid;
  std::erase_if(undone, [&](const LogEntry& entry) { return entry.txid > reached; });
  std::optional<Epoch> epoch;
  {
    std::lock_guard lock(mutex_);
    // What the log does not have may be of an earlier epoch.
    if (!log_.empty() && log_.front().txid <= at.txid && at.txid <= log_.back().txid)
      epoch = log_[at.txid.value - log_.front().txid.value].epoch;
    if (!epoch && at.epoch > newest->position().epoch) epoch = newest->position().epoch;
  }
  if (epoch && *epoch != at.epoch) {
    return fail(Code::kNotFound, fmt::format("transaction {} was not one of epoch {}",
                                             at.txid.value, at.epoch.value));
  }
  if (undone.empty()) return newest;
  std::array<std::uint8_t, 8> random;
  fill_random(random);
  PastSource source{std::move(newest), undone, at, *environment_.options.files,
                    fmt::format("{}-past-{}", identity_.path, to_hex(random))};
  return make_past_snapshot(std::move(source), *environment_.journal);
}

std::vector<LogEntry> HostedDatabase::log_before(std::optional<TxId> before, std::size_t limit) {
  std::lock_guard lock(mutex_);
  std::vector<LogEntry> entries;
  if (log_.empty()) return entries;
  const std::uint64_t first = log_.front().txid.value;
  std::uint64_t end = std::min(visible_.txid.value, log_.back().txid.value) + 1;
  if (before) end = std::min(end, before->value);
  for (; end > first && entries.size() < limit; --end) entries.push_back(log_[end - 1 - first]);
  return entries;
}

Result<TransactionDetails> HostedDatabase::details(const LogEntry& entry) {
  TransactionDetails details;
  std::vector<PageNo> pages;
  Bytes page_one;
  {
    OFFPRINT_TRY_ASSIGN(auto source, environment_.journal->open_payload(entry.location));
    ltx::Decoder decoder(*source);
    OFFPRINT_TRY_ASSIGN(ltx::Header header, decoder.begin());
    details.page_count = header.page_count;
    for (;;) {
      OFFPRINT_TRY_ASSIGN(auto page, decoder.next());
      if (!page) break;
      pages.push_back(page->number);
      if (page->number == 1) page_one.assign(page->content.begin(), page->content.end());
    }
  }
  details.pages = static_cast<std::uint32_t>(pages.size());
  OFFPRINT_TRY_ASSIGN(auto state, snapshot_at({entry.epoch, entry.txid, position().lineage}));
  OFFPRINT_TRY_ASSIGN(details.tables, touched_tables(*state, pages));
  OFFPRINT_TRY_ASSIGN(journal::Record record, environment_.journal->read(entry.location));
  OFFPRINT_TRY_ASSIGN(bool changed, changes_cookie(record, page_one));
  details.schema_changed = changed || entry.txid.value == 1;
  return details;
}

Result<Bookmark> HostedDatabase::rewrite(Snapshot& to) {
  if (auto busy = exclusive()) return fail(*std::move(busy));
  Result<Bookmark> result = fail(Code::kUnavailable, "not run");
  run_task_and_wait([&] { result = rewrite_at_turn(to); });
  return result;
}

Result<Bookmark> HostedDatabase::rewrite_at_turn(Snapshot& to) {
  DatabaseState state;
  std::shared_ptr<HeldTransaction> held;
  if (has_primary_elsewhere()) return fail(read_only_error());
  {
    std::lock_guard lock(mutex_);
    if (refused_) return fail(*refused_);
    if (!tails_.empty())
      return fail(Code::kConflict, fmt::format("database '{}' follows the file {}: restore it into "
                                               "a new database",
                                               identity_.name, tails_));
    if (!stopped_.empty()) return fail(Code::kUnavailable, stopped_);
    if (limits_.reads_blocked || limits_.writes_blocked)
      return fail(blocked_error(limits_.block_reason, "not written"));
    held = held_;
  }
  if (held) {
    end_held(held, Error(Code::kConflict,
                         "DATABASE_RESTORED: the database was restored to an earlier state, and "
                         "the transaction was rolled back"));
  }
  if (auto files = open_files(); !files) return fail(files.error());
  {
    std::lock_guard lock(mutex_);
    if (!stopped_.empty()) return fail(Code::kUnavailable, stopped_);
    state = state_;
    const std::uint64_t bytes = std::uint64_t{to.page_size()} * to.page_count();
    if (limits_.size_bytes_max != 0 && bytes > limits_.size_bytes_max)
      return fail(Code::kFull, "database or disk is full", SQLITE_FULL);
  }
  if (to.page_count() == 0 || state.page_count == 0)
    return fail(Code::kInvalid, "an empty database has no earlier state");
  if (to.page_size() != state.page_size)
    return fail(Code::kInvalid, fmt::format("pages had {} bytes then, and have {} now",
                                            to.page_size(), state.page_size));
  OFFPRINT_TRY_ASSIGN(const Decision decision, decide_rewrite(to, state));
  // It is decided: recovery brings it into the file, now or when it can be opened again.
  close_files();
  note_decided(decision);
  needs_recovery_ = true;
  auto files = open_files();
  became_visible();
  if (!files)
    log::warn("database '{}' cannot be opened: {}", identity_.name, files.error().message());
  const TxId then = to.position().txid;  // a file has none
  log::info("database '{}': made what {}, as transaction {}", identity_.name,
            then.value == 0 ? "a file holds" : fmt::format("it was at transaction {}", then.value),
            decision.entry.txid.value);
  return decision.state.position.bookmark();
}

Result<Decision> HostedDatabase::decide_rewrite(Snapshot& to, const DatabaseState& state) {
  DatabaseState next = state;
  next.position.txid = state.position.txid.next();
  next.position.epoch = std::max(Epoch{state.position.epoch.value + 1}, decider().least_epoch);
  next.page_size = to.page_size();
  next.page_count = to.page_count();
  next.timestamp_ms = std::max(environment_.options.wall_clock_ms(), state.timestamp_ms);
  OFFPRINT_TRY_ASSIGN(auto now, PageReader::open(identity_.path, environment_.vfs.c_str()));
  OFFPRINT_TRY(now.begin());
  OFFPRINT_TRY_ASSIGN(auto payload, environment_.journal->create_large_payload());
  const std::size_t undo_bytes_max = environment_.options.journal.segment_size / 16;
  Rewriting rewriting(now, to, state, next, *payload, undo_bytes_max);
  OFFPRINT_TRY(rewriting.run());
  now.end();
  OFFPRINT_TRY(payload->finish());
  journal::Draft draft;
  draft.database_id = identity_.id;
  draft.metadata.push_back({journal::MetadataType::kDatabaseState, next.encode()});
  if (auto undo = rewriting.undo())
    draft.metadata.push_back({journal::MetadataType::kUndo, *std::move(undo)});
  draft.large_file = payload->file();
  draft.large_size = payload->size();
  return decide(std::move(draft), state, next);
}

}  // namespace offprint::database
