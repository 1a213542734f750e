// What was found damaged or missing in a database's archive, put right from the database.
#include <algorithm>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "archive/database_archive.h"
#include "archive/page_merge.h"

namespace offprint::archive {
namespace {

constexpr std::size_t kBytesMax = 256 << 20;  // of transactions that are put again as one file
constexpr const char* kDamagedPrefix = "offprint/damaged/";

}  // namespace

// The transactions as the log has them; none: it has not all of them, or they are too large.
Result<std::vector<database::LogEntry>> DatabaseArchive::logged(TxId first, TxId last) {
  std::vector<database::LogEntry> entries;
  if (last.value - first.value >= kBytesMax) return entries;
  const Bookmark before{Epoch{}, TxId{first.value - 1}, lineage_};
  auto read = store_.log_after(name_, before, last.value - first.value + 1);
  if (!read && read.error().code() != Code::kBehind) return fail(read.error());
  if (!read || read->empty() || read->back().txid != last) return entries;
  std::size_t bytes = 0;
  for (const database::LogEntry& entry : *read) bytes += entry.location.payload_size;
  if (bytes <= kBytesMax) entries = *std::move(read);
  return entries;
}

// True: the object holds again what it was to hold.
Result<bool> DatabaseArchive::put_again(const ArchivedFile& file) {
  OFFPRINT_TRY_ASSIGN(auto entries, logged(file.min_txid, file.max_txid));
  if (entries.empty()) return false;
  PageMerge merge;
  for (const database::LogEntry& entry : entries) {
    OFFPRINT_TRY_ASSIGN(auto payload, store_.open_payload(entry.location));
    OFFPRINT_TRY(merge.add(entry, *payload));
  }
  Bytes bytes;
  ltx::BytesSink sink(bytes);
  OFFPRINT_TRY(merge.write(sink));
  ltx::BytesSource source(bytes);
  PutOptions options;
  options.timestamp_ms = merge.header().timestamp_ms;
  OFFPRINT_TRY(objects_.put(file.key, source, options));
  ++counters_.puts;
  counters_.bytes += bytes.size();
  return true;
}

Result<> DatabaseArchive::set_aside(const ArchivedFile& file) {
  const std::string to = prefix_ + kDamagedPrefix + file.key.substr(prefix_.size());
  OFFPRINT_TRY_ASSIGN(auto source, objects_.get(file.key));
  OFFPRINT_TRY(objects_.put(to, *source, {}));
  source.reset();
  OFFPRINT_TRY(objects_.remove({file.key}));
  std::erase_if(files_[file.level], [&](const ArchivedFile& each) { return each.key == file.key; });
  return {};
}

Result<bool> DatabaseArchive::put_missing(TxId first, TxId last) {
  OFFPRINT_TRY_ASSIGN(auto entries, logged(first, last));
  if (entries.empty()) return false;
  ArchivedFile file = file_of(0, first, last, entries.back().timestamp_ms);
  OFFPRINT_TRY_ASSIGN(const bool done, put_again(file));
  files_[0].push_back(std::move(file));
  std::ranges::sort(files_[0], {}, &ArchivedFile::max_txid);
  return done;
}

// True: nothing is missing any more. Files that nothing can lead to any more go too.
Result<bool> DatabaseArchive::fill_gaps(std::vector<std::string>& done) {
  std::vector<ArchivedFile> files;
  for (const auto& [level, each] : files_) files.insert(files.end(), each.begin(), each.end());
  std::ranges::sort(
      files, {}, [](const ArchivedFile& file) { return std::pair(file.max_txid, file.min_txid); });
  bool is_whole = true;
  TxId reached;  // as in Chain: what reaches further is of no help for what does not
  for (const ArchivedFile& file : files) {
    if (file.max_txid == reached) continue;
    if (file.min_txid > reached.next()) {
      const TxId last{file.min_txid.value - 1};
      OFFPRINT_TRY_ASSIGN(const bool put, put_missing(reached.next(), last));
      done.push_back(fmt::format("transactions {} to {} were missing{}", reached.value + 1,
                                 last.value, put ? "; put again from the log" : ""));
      if (!put) {
        is_whole = false;
        OFFPRINT_TRY(set_aside(file));
        continue;
      }
    }
    reached = file.max_txid;
  }
  return is_whole;
}

Result<std::vector<std::string>> DatabaseArchive::repair(
    const std::vector<std::string>& damaged_keys) {
  std::vector<std::string> done;
  std::vector<ArchivedFile> damaged;
  for (const auto& [level, files] : files_) {
    std::ranges::copy_if(files, std::back_inserter(damaged), [&](const ArchivedFile& file) {
      return std::ranges::find(damaged_keys, file.key) != damaged_keys.end();
    });
  }
  // It was written anew when this was loaded.
  if (has_history_ && std::ranges::find(damaged_keys, prefix_ + kHistoryKey) != damaged_keys.end())
    done.push_back(fmt::format("{}{} is there again", prefix_, kHistoryKey));
  bool is_whole = true;
  for (const ArchivedFile& file : damaged) {
    OFFPRINT_TRY_ASSIGN(const bool put, put_again(file));
    if (!put) {
      is_whole = false;
      OFFPRINT_TRY(set_aside(file));
    }
    done.push_back(fmt::format(
        "{} {}", file.key,
        put ? "was put again from the log" : fmt::format("went to {}{}", prefix_, kDamagedPrefix)));
  }
  OFFPRINT_TRY_ASSIGN(const bool has_no_gaps, fill_gaps(done));
  // Also where nothing was found: whatever does not add up, the newest moment does then.
  if (!is_whole || !has_no_gaps || done.empty()) {
    OFFPRINT_TRY(put_snapshot());
    reach(std::max(reached_, files_[kSnapshotLevel].back().max_txid));
    done.push_back(fmt::format("a snapshot of transaction {} was put", reached_.value));
  }
  due_ms_ = find_due();
  return done;
}

}  // namespace offprint::archive
