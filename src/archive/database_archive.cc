#include "archive/database_archive.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "archive/archive_header.h"
#include "archive/page_merge.h"
#include "archive/pipe.h"
#include "base/assert.h"
#include "base/log.h"
#include "ltx/checksum.h"

namespace offprint::archive {
namespace {

using database::LogEntry;

constexpr std::size_t kEntriesAtOnce = 4'096;
// With `sync` 0 each transaction is a file, unless more than these wait: an archive that is slower
// than its writers gets all of them rather than each.
constexpr std::size_t kSinglyMax = 100;
constexpr std::size_t kMergeBytesMax = 32 << 20;  // of pages, for one file of level 0
constexpr std::size_t kCompactedAtOnce = 64;

std::int64_t window_end(std::int64_t at_ms, std::chrono::milliseconds length) {
  return (at_ms / length.count() + 1) * length.count();
}

// A source of something large, and what is looked after between its pieces.
class BetweenPieces final : public ltx::ByteSource {
 public:
  BetweenPieces(ltx::ByteSource& from, std::function<void()> between)
      : from_(from), between_(std::move(between)) {}
  Result<std::size_t> read(std::span<std::uint8_t> to) override {
    if (between_) between_();
    return from_.read(to);
  }
  std::function<void()> between() { return std::move(between_); }

 private:
  ltx::ByteSource& from_;
  std::function<void()> between_;
};

bool covers(const ArchivedFile& larger, const ArchivedFile& file) {
  return larger.min_txid <= file.min_txid && file.max_txid <= larger.max_txid;
}

}  // namespace

ArchivedFile DatabaseArchive::file_of(int level, TxId min, TxId max,
                                      std::int64_t timestamp_ms) const {
  ArchivedFile file{level, min, max, prefix_ + objects_.level_prefix(level), 0, timestamp_ms};
  file.key += ltx::file_name(min, max);
  return file;
}

const ArchivedFile& DatabaseArchive::newest() const {
  const ArchivedFile* newest = nullptr;
  for (const auto& [level, files] : files_) {
    if (!files.empty() && files.back().max_txid == reached_) newest = &files.back();
  }
  OFFPRINT_ASSERT(newest != nullptr);
  return *newest;
}

// --- transactions ------------------------------------------------------------------------------

Result<> DatabaseArchive::put_transactions() {
  OFFPRINT_TRY_ASSIGN(const Position ours, store_.position(name_));
  if (ours.lineage != lineage_) return fail(Code::kConflict, "another database has got the name");
  while (ours.txid > reached_) {
    auto entries = store_.log_after(name_, {ours.epoch, reached_, lineage_}, kEntriesAtOnce);
    if (!entries && entries.error().code() != Code::kBehind) return fail(entries.error());
    if (!entries) {
      if (reached_.value != 0) {
        log::warn(
            "archive of database '{}': transactions after {} have left the log; putting a "
            "snapshot of {}",
            name_.text(), reached_.value, ours.txid.value);
      }
      OFFPRINT_TRY(put_snapshot());
      reach(files_[kSnapshotLevel].back().max_txid);  // what is between is lost
    } else {
      if (entries->empty()) return {};
      OFFPRINT_TRY(put_log(*entries));
    }
  }
  return {};
}

Result<> DatabaseArchive::put_log(const std::vector<LogEntry>& entries) {
  PageMerge merge;
  auto flush = [&](const LogEntry& last) -> Result<> {
    if (merge.empty()) return {};
    OFFPRINT_TRY(note_parts(last));
    Bytes bytes;
    ltx::BytesSink sink(bytes);
    OFFPRINT_TRY(merge.write(sink));
    const ltx::Header& header = merge.header();
    ArchivedFile file = file_of(0, header.min_txid, header.max_txid, header.timestamp_ms);
    if (bytes.size() <= kSmallObjectMax) {
      OFFPRINT_TRY(put_small(std::move(file), bytes));
    } else {
      ltx::BytesSource source(bytes);
      OFFPRINT_TRY(put(std::move(file), source));
    }
    merge = PageMerge();
    return {};
  };
  const bool is_singly = schedule_.sync.count() == 0 && entries.size() <= kSinglyMax;
  const LogEntry* last = nullptr;
  for (const LogEntry& entry : entries) {
    bool is_large = entry.location.payload_size > kMergeBytesMax;
    bool is_apart = is_large || is_singly || merge.bytes() > kMergeBytesMax ||
                    (last != nullptr && (entry.epoch != last->epoch ||
                                         window_end(entry.timestamp_ms, schedule_.windows[0]) !=
                                             window_end(last->timestamp_ms, schedule_.windows[0])));
    if (last != nullptr && is_apart) OFFPRINT_TRY(flush(*last));
    if (is_large) {
      OFFPRINT_TRY(put_large(entry));
    } else {
      OFFPRINT_TRY_ASSIGN(auto payload, store_.open_payload(entry.location));
      OFFPRINT_TRY(merge.add(entry, *payload));
    }
    last = &entry;
  }
  return flush(*last);
}

Result<> DatabaseArchive::put_large(const LogEntry& entry) {
  OFFPRINT_TRY(note_parts(entry));
  OFFPRINT_TRY_ASSIGN(auto payload, store_.open_payload(entry.location));
  std::unique_ptr<ltx::ByteSource> pipe = make_pipe([&](ltx::ByteSink& to) -> Result<> {
    ltx::Decoder decoder(*payload);
    OFFPRINT_TRY_ASSIGN(ltx::Header header, decoder.begin());
    ltx::Encoder encoder(to, kArchiveEncoding);
    OFFPRINT_TRY(encoder.begin(archive_header(header, entry.checksum)));
    for (;;) {
      OFFPRINT_TRY_ASSIGN(auto page, decoder.next());
      if (!page) break;
      OFFPRINT_TRY(encoder.page(page->number, page->content));
    }
    OFFPRINT_TRY(decoder.finish());
    OFFPRINT_TRY(encoder.finish(Checksum{}));
    return {};
  });
  return put(file_of(0, entry.txid, entry.txid, entry.timestamp_ms), *pipe);
}

Result<> DatabaseArchive::put_snapshot() {
  OFFPRINT_TRY_ASSIGN(auto snapshot, store_.snapshot(name_));
  Position position = snapshot->position();
  if (position.lineage != lineage_ || position.txid < reached_)
    return fail(Code::kConflict, "another database has got the name");
  LogEntry entry;
  entry.txid = position.txid;
  entry.epoch = position.epoch;
  entry.checksum = position.checksum;
  Bookmark before = position.bookmark();
  --before.txid.value;
  auto logged = store_.log_after(name_, before, 1);
  if (logged && !logged->empty()) {
    entry.timestamp_ms = logged->front().timestamp_ms;
  } else {
    OFFPRINT_TRY_ASSIGN(database::DatabaseInfo info, store_.info(name_));
    entry.timestamp_ms = info.written_at_ms;
  }
  OFFPRINT_TRY(note_parts(entry));
  std::unique_ptr<ltx::ByteSource> pipe = make_pipe([&](ltx::ByteSink& to) -> Result<> {
    ltx::Header header;
    header.page_size = snapshot->page_size();
    header.page_count = snapshot->page_count();
    header.min_txid = TxId{1};
    header.max_txid = position.txid;
    header.timestamp_ms = entry.timestamp_ms;
    ltx::Encoder encoder(to, kArchiveEncoding);
    OFFPRINT_TRY(encoder.begin(archive_header(header, position.checksum)));
    for (PageNo page = 1; page <= header.page_count; ++page) {
      if (page == ltx::lock_page(header.page_size)) continue;
      OFFPRINT_TRY_ASSIGN(ByteView image, snapshot->page(page));
      OFFPRINT_TRY(encoder.page(page, image));
    }
    OFFPRINT_TRY(encoder.finish(Checksum{}));
    return {};
  });
  return put(file_of(kSnapshotLevel, TxId{1}, position.txid, entry.timestamp_ms), *pipe);
}

Result<> DatabaseArchive::put(ArchivedFile file, ltx::ByteSource& from) {
  PutOptions options;
  options.timestamp_ms = file.timestamp_ms;
  BetweenPieces pieces(from, std::exchange(between_, {}));
  auto done = objects_.put(file.key, pieces, options);
  between_ = pieces.between();
  if (!done) return fail(done.error());
  file.size = done->size;
  add(std::move(file));
  return {};
}

Result<> DatabaseArchive::put_small(ArchivedFile file, ByteView content) {
  PutOptions options;
  options.timestamp_ms = file.timestamp_ms;
  options.if_absent = true;
  ltx::BytesSource source(content);
  auto done = objects_.put(file.key, source, options);
  if (!done && done.error().code() == Code::kConflict) {
    // It may be this very one, whose answer got lost.
    OFFPRINT_TRY_ASSIGN(Bytes there, read_object(objects_, file.key, kSmallObjectMax));
    if (!std::ranges::equal(there, content)) {
      return fail(Code::kConflict,
                  fmt::format("{}/{} is there with another content: another program writes this "
                              "archive",
                              objects_.url(), file.key));
    }
  } else if (!done) {
    return fail(done.error());
  }
  file.size = content.size();
  add(std::move(file));
  return {};
}

void DatabaseArchive::add(ArchivedFile file) {
  ++counters_.puts;
  counters_.bytes += file.size;
  // A snapshot may be newer than what was put singly, which still has to follow.
  if (file.level != kSnapshotLevel && file.max_txid > reached_) reach(file.max_txid);
  if (file.level == 0) note_due(file);
  files_[file.level].push_back(std::move(file));
}

void DatabaseArchive::reach(TxId txid) {
  reached_ = txid;
  head_noted_ = false;
}

// --- the history beside them -------------------------------------------------------------------

// Before the first transaction of an epoch is there, so that its bookmarks are never unknown.
Result<> DatabaseArchive::note_parts(const LogEntry& entry) {
  if (!history_.parts.empty() && history_.parts.back().from.epoch == entry.epoch) return {};
  history_.parts.push_back({{entry.epoch, reached_.next(), lineage_}, entry.timestamp_ms});
  if (Result<> put = put_history(); !put) {
    history_.parts.pop_back();
    return put;
  }
  return {};
}

Result<> DatabaseArchive::note_head() {
  if (head_noted_) return {};
  const ArchivedFile& last = newest();
  OFFPRINT_TRY_ASSIGN(Bookmark bookmark, history_.bookmark_of(reached_));
  OFFPRINT_TRY_ASSIGN(ltx::Header header, read_header(objects_, last.key));
  history_.head = {bookmark.lineage, bookmark.epoch, bookmark.txid, Checksum{header.node_id}};
  history_.head_ms = last.timestamp_ms;
  OFFPRINT_TRY(put_history());
  head_noted_ = true;
  return {};
}

Result<> DatabaseArchive::put_history() {
  OFFPRINT_TRY_ASSIGN(database::DatabaseInfo info, store_.info(name_));
  history_.database = name_.text();
  history_.foreign_keys = info.options.foreign_keys;
  std::string text = history_.text();
  ltx::BytesSource source(as_bytes(text));
  OFFPRINT_TRY(objects_.put(prefix_ + kHistoryKey, source, {}));
  has_history_ = true;
  ++counters_.puts;
  return {};
}

// --- upkeep ------------------------------------------------------------------------------------

// The next files that a file of `level` would put together: those of one window, without a gap,
// that no file of this level or a higher one covers; of files that cover each other the larger
// ones. Empty: there are not two.
std::vector<ArchivedFile> DatabaseArchive::run_for(int level) const {
  TxId covered;
  if (auto above = files_.find(level); above != files_.end() && !above->second.empty())
    covered = above->second.back().max_txid;
  std::vector<ArchivedFile> below;
  for (int each = level - 1; each >= 0; --each) {
    auto found = files_.find(each);
    if (found == files_.end()) continue;
    // Larger ones are in higher levels: looked up, because there may be many of this level.
    auto is_covered = [&](const ArchivedFile& file) {
      for (int above = each + 1; above < level; ++above) {
        auto files = files_.find(above);
        if (files == files_.end()) continue;
        auto larger =
            std::ranges::lower_bound(files->second, file.max_txid, {}, &ArchivedFile::max_txid);
        if (larger != files->second.end() && larger->min_txid > covered && covers(*larger, file))
          return true;
      }
      return false;
    };
    for (auto file = std::ranges::upper_bound(found->second, covered, {}, &ArchivedFile::max_txid);
         file != found->second.end(); ++file) {
      if (file->min_txid > covered && !is_covered(*file)) below.push_back(*file);
    }
  }
  std::ranges::sort(below, {}, &ArchivedFile::max_txid);
  auto length = schedule_.windows[static_cast<std::size_t>(level - 1)];
  std::vector<ArchivedFile> run;
  for (const ArchivedFile& file : below) {
    if (!run.empty() &&
        (file.min_txid != run.back().max_txid.next() ||
         window_end(file.timestamp_ms, length) != window_end(run.back().timestamp_ms, length))) {
      if (run.size() > 1) return run;
      run.clear();  // it is alone in its window: there is nothing to put together
    }
    run.push_back(file);
    if (run.size() == kCompactedAtOnce) return run;
  }
  if (run.size() < 2) run.clear();
  return run;
}

// Looks at every file that is not put together yet.
std::optional<std::int64_t> DatabaseArchive::find_due() const {
  std::optional<std::int64_t> due;
  auto at = [&](std::int64_t when) { due = due ? std::min(*due, when) : when; };
  static const std::vector<ArchivedFile> kNone;
  auto files = [&](int level) -> const std::vector<ArchivedFile>& {
    auto found = files_.find(level);
    return found == files_.end() ? kNone : found->second;
  };
  for (int level = 1; level <= kCompactedLevels; ++level) {
    auto length = schedule_.windows[static_cast<std::size_t>(level - 1)];
    if (auto run = run_for(level); !run.empty()) at(window_end(run.front().timestamp_ms, length));
  }
  if (!head_noted_ && !files(0).empty())
    at(window_end(files(0).back().timestamp_ms, schedule_.windows[0]));
  const auto& snapshots = files(kSnapshotLevel);
  TxId snapped = snapshots.empty() ? TxId{} : snapshots.back().max_txid;
  if (reached_ > snapped && !history_.parts.empty()) {
    at(window_end(
        snapshots.empty() ? history_.parts.front().since_ms : snapshots.back().timestamp_ms,
        schedule_.snapshots));
  }
  return due;
}

// Transactions came: no later than when their window ends, or a snapshot's.
void DatabaseArchive::note_due(const ArchivedFile& file) {
  std::int64_t due = window_end(file.timestamp_ms, schedule_.windows[0]);
  const auto& snapshots = files_[kSnapshotLevel];
  if (!snapshots.empty() || !history_.parts.empty()) {
    due = std::min(due, window_end(snapshots.empty() ? history_.parts.front().since_ms
                                                     : snapshots.back().timestamp_ms,
                                   schedule_.snapshots));
  }
  due_ms_ = due_ms_ ? std::min(*due_ms_, due) : due;
}

Result<> DatabaseArchive::keep_up(std::int64_t now_ms) {
  auto is_due = [now_ms](std::optional<std::int64_t> due) { return due && *due <= now_ms; };
  if (!is_due(due_ms_)) return {};
  for (int level = 1; level <= kCompactedLevels; ++level) OFFPRINT_TRY(compact(level, now_ms));
  if (!head_noted_ && is_due(find_due())) OFFPRINT_TRY(note_head());
  OFFPRINT_TRY(remove_covered(now_ms));
  if (is_due(find_due())) {
    OFFPRINT_TRY(put_snapshot());
    OFFPRINT_TRY(retain(now_ms));
  }
  due_ms_ = find_due();
  return {};
}

Result<> DatabaseArchive::compact(int to_level, std::int64_t now_ms) {
  for (;;) {
    std::vector<ArchivedFile> run = run_for(to_level);
    auto length = schedule_.windows[static_cast<std::size_t>(to_level - 1)];
    if (run.empty() || window_end(run.front().timestamp_ms, length) > now_ms) return {};
    OFFPRINT_TRY_ASSIGN(ltx::Header last, read_header(objects_, run.back().key));
    std::vector<std::unique_ptr<ltx::ByteSource>> sources;
    std::vector<ltx::ByteSource*> inputs;
    for (const ArchivedFile& file : run) {
      OFFPRINT_TRY_ASSIGN(auto source, objects_.get(file.key));
      sources.push_back(std::move(source));
      inputs.push_back(sources.back().get());
    }
    std::unique_ptr<ltx::ByteSource> pipe = make_pipe([&](ltx::ByteSink& to) -> Result<> {
      OFFPRINT_TRY(ltx::compact(inputs,
                                {.flags = ltx::kNoChecksumFlag,
                                 .encoding = kArchiveEncoding,
                                 .node_id = last.node_id,
                                 .wal_offset = kWalOffset,
                                 .wal_salt1 = kWalSalt,
                                 .wal_salt2 = kWalSalt},
                                to));
      return {};
    });
    OFFPRINT_TRY(
        put(file_of(to_level, run.front().min_txid, run.back().max_txid, run.back().timestamp_ms),
            *pipe));
  }
}

// A file that is kept for its moment stands in for those of higher levels that would be the same:
// what counts is the lowest level that covers it.
Result<> DatabaseArchive::remove_covered(std::int64_t now_ms) {
  std::vector<std::string> keys;
  for (int level = 0; level < kCompactedLevels; ++level) {
    std::erase_if(files_[level], [&](const ArchivedFile& file) {
      for (int above = level + 1; above <= kCompactedLevels; ++above) {
        const auto& files = files_[above];
        auto from = std::ranges::lower_bound(files, file.max_txid, {}, &ArchivedFile::max_txid);
        if (from == files.end() || !covers(*from, file)) continue;
        auto keep = schedule_.keep[static_cast<std::size_t>(above - 1)];
        // Those of a larger file go together: each is needed by the ones that follow it there. The
        // last one is the same moment as all of it.
        bool is_old = from->timestamp_ms < now_ms - keep.count() || from->max_txid == file.max_txid;
        if (is_old && file.timestamp_ms < now_ms - schedule_.keep[0].count()) {
          keys.push_back(file.key);
          return true;
        }
        return false;
      }
      return false;
    });
  }
  return keys.empty() ? Result<>() : objects_.remove(keys);
}

// Everything before the newest snapshot that is older than the retention time.
Result<> DatabaseArchive::retain(std::int64_t now_ms) {
  OFFPRINT_TRY_ASSIGN(database::DatabaseInfo info, store_.info(name_));
  std::chrono::milliseconds retention = schedule_.retention;
  if (info.limits.retention_days != 0) retention = std::chrono::days(info.limits.retention_days);
  auto& snapshots = files_[kSnapshotLevel];
  const ArchivedFile* base = nullptr;
  for (const ArchivedFile& file : snapshots) {
    if (file.timestamp_ms < now_ms - retention.count()) base = &file;
  }
  if (base == nullptr) return {};
  TxId reach = base->max_txid;
  std::vector<std::string> keys;
  for (auto& [level, files] : files_) {
    std::erase_if(files, [&](const ArchivedFile& file) {
      bool old = level == kSnapshotLevel ? file.max_txid < reach : file.max_txid <= reach;
      if (old) keys.push_back(file.key);
      return old;
    });
  }
  return keys.empty() ? Result<>() : objects_.remove(keys);
}

}  // namespace offprint::archive
