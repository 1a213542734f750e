#include "cluster/lost_transactions.h"

#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "cluster/folder_owner.h"
#include "cluster/group_index.h"
#include "database/folder_fill.h"
#include "database/list_in_file.h"
#include "database/replay.h"
#include "ltx/file_stream.h"

namespace offprint::cluster {
namespace {

using database::ListInFile;

// A try again may succeed: nothing is given up for it.
bool is_of_disk(const Error& error) {
  return error.code() == Code::kFull || error.code() == Code::kIo;
}

// The transactions of the folder's log that the list of the databases that come does not count.
class LostTransactions {
 public:
  LostTransactions(FileSystem& files, const std::string& data, const ListInFile& now)
      : files_(files), data_(data), now_(now), folder_(data + "/" + kLostFolder) {
    if (auto before = ListInFile::read(data)) before_ = *std::move(before);
  }

  // Its history was not cut since it was written.
  bool has_none() const { return std::ranges::includes(before_.cuts, now_.cuts); }

  Result<> keep() {
    GroupIndex index;
    OFFPRINT_TRY_ASSIGN(journal_, open_journal(files_, data_, [&](const journal::Record& record) {
                          index.visit(record);
                          return Result<>();
                        }));
    const IndexedGroup group = index.take(*journal_, journal_group(0));
    for (std::uint64_t number = group.log.base().value + 1; number <= group.log.last().value;
         ++number) {
      const bool committed = Lsn{number} <= group.commit;
      OFFPRINT_TRY(look_at(group.place(Lsn{number}), committed));
    }
    return finish();
  }

 private:
  Result<> look_at(const journal::Location& place, bool committed) {
    OFFPRINT_TRY_ASSIGN(journal::Record record, journal_->read(place));
    if (record.kind != journal::Kind::kTransaction || record.database_id == 0) return {};
    OFFPRINT_TRY_ASSIGN(database::DatabaseState state, database::state_in(record));
    const std::optional<std::string> name =
        lost_from(record.database_id, state.position.bookmark());
    return name ? keep_one(record, state, *name, committed) : Result<>();
  }

  // Nothing: it is not lost, or its database was dropped before.
  std::optional<std::string> lost_from(std::uint64_t id, const Bookmark& transaction) const {
    auto entry_in = [&](const ListInFile& list) -> const ListInFile::Entry* {
      auto found = list.databases.find(id);
      const bool is_it =
          found != list.databases.end() && found->second.lineage == transaction.lineage;
      return is_it ? &found->second : nullptr;
    };
    if (const auto* entry = entry_in(now_))
      return entry->lost(transaction) ? std::optional(entry->name) : std::nullopt;
    const auto* entry = entry_in(before_);
    return entry != nullptr ? std::optional(entry->name) : std::nullopt;
  }

  Result<> keep_one(const journal::Record& record, const database::DatabaseState& state,
                    const std::string& database, bool committed) {
    if (count_++ == 0) OFFPRINT_TRY(files_.create_directories(unfinished()));
    const std::string file =
        fmt::format("{}-{:016x}.ltx", record.database_id, state.position.txid.value);
    auto copied = copy_payload(record.location, unfinished() + "/" + file);
    if (!copied && is_of_disk(copied.error())) return copied;
    list_ += fmt::format(
        "{{\"database\":\"{}\",\"bookmark\":\"{}\",\"time\":\"{}\",\"known_committed\":{},"
        "\"file\":{}}}\n",
        database, state.position.bookmark().text(), format_rfc3339(state.timestamp_ms), committed,
        copied ? fmt::format("\"{}\"", file) : "null");  // null: it is damaged
    return {};
  }

  Result<> copy_payload(const journal::Location& place, const std::string& path) {
    OFFPRINT_TRY_ASSIGN(auto source, journal_->open_payload(place));
    OFFPRINT_TRY_ASSIGN(auto file, files_.open(path, FileSystem::Mode::kCreate));
    OFFPRINT_TRY(file->truncate(0));  // of a try that was cut short
    ltx::FileSink sink(*file);
    OFFPRINT_TRY(ltx::copy_bytes(*source, sink));
    return file->sync();
  }

  Result<> finish() {
    if (count_ == 0) return {};
    OFFPRINT_TRY(write_file_atomically(files_, unfinished() + "/list.ndjson", as_bytes(list_)));
    std::string time = format_rfc3339(unix_time_ms());
    std::ranges::replace(time, ':', '-');
    OFFPRINT_TRY(files_.rename(unfinished(), folder_ + "/" + time));
    OFFPRINT_TRY(files_.sync_directory(folder_));
    OFFPRINT_TRY(files_.sync_directory(data_));
    log::warn("a forced failover cut {} transactions that were here: they are kept in {}/{}",
              count_, folder_, time);
    return {};
  }
  std::string unfinished() const { return folder_ + "/unfinished"; }

  FileSystem& files_;
  const std::string& data_;
  const ListInFile& now_;
  ListInFile before_;
  const std::string folder_;
  std::unique_ptr<journal::Journal> journal_;
  std::string list_;
  std::size_t count_ = 0;
};

Result<> keep_lost_transactions(FileSystem& files, const std::string& data,
                                const std::string& filled) {
  for (const std::string& part : {data + "/journal", filled + "/databases"}) {
    OFFPRINT_TRY_ASSIGN(bool is_there, files.exists(part));
    if (!is_there) return {};  // a new folder, or one whose fill is being taken over
  }
  OFFPRINT_TRY_ASSIGN(ListInFile now, ListInFile::read(filled));
  LostTransactions lost(files, data, now);
  return lost.has_none() ? Result<>() : lost.keep();
}

}  // namespace

Result<> take_over_fill(FileSystem& files, const std::string& data) {
  OFFPRINT_TRY_ASSIGN(bool waits, database::FolderFill::is_finished(files, data));
  if (waits) {
    auto kept = keep_lost_transactions(files, data, database::FolderFill::folder(data));
    if (!kept && is_of_disk(kept.error())) return kept;
    // What is damaged cannot be kept, and a cluster that has it again is worth more.
    if (!kept)
      log::warn("what a forced failover may have cut is not known: {}", kept.error().message());
  }
  return database::FolderFill::take_over(files, data);
}

}  // namespace offprint::cluster
