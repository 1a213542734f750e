#include "database/folder_fill.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "database/checkpoint_record.h"
#include "database/store_folder.h"
#include "ltx/checksum.h"

namespace offprint::database {
namespace {

constexpr std::array<const char*, 2> kFolders{"journal", "databases"};

// The folder and all that is in it; absent is no error. What stays of it is empty.
Result<> remove_all(FileSystem& files, const std::string& path) {
  OFFPRINT_TRY_ASSIGN(auto status, files.status(path));
  if (!status) return {};
  if (!status->is_directory) return files.remove(path);
  OFFPRINT_TRY_ASSIGN(auto names, files.list(path));
  for (const std::string& name : names) OFFPRINT_TRY(remove_all(files, path + "/" + name));
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
  return {};
}

}  // namespace

std::string FolderFill::folder(const std::string& directory) { return directory + "/filling"; }

Result<FolderFill> FolderFill::begin(FileSystem& files, const std::string& directory) {
  FolderFill fill(files, folder(directory));
  OFFPRINT_TRY(remove_all(files, fill.directory_));
  OFFPRINT_TRY(make_store_folder(files, fill.directory_));
  return fill;
}

Result<> FolderFill::database(std::uint64_t id, ByteView state) {
  OFFPRINT_TRY(end_database());
  OFFPRINT_TRY_ASSIGN(DatabaseState decoded, DatabaseState::decode(state));
  const Filled filled{decoded, database_file(directory_, id)};
  filled_.erase(id);
  OFFPRINT_TRY(files_->remove(filled.path));
  OFFPRINT_TRY_ASSIGN(file_, files_->open(filled.path, FileSystem::Mode::kCreateNew));
  filled_.emplace(id, filled);
  id_ = id;
  pages_ = 0;
  checksum_ = ltx::kEmptyDatabase;
  return {};
}

Result<> FolderFill::pages(ByteView images) {
  if (!id_) return fail(Code::kCorrupt, "pages of no database came");
  const DatabaseState& state = filled_.at(*id_).state;
  const std::uint32_t size = state.page_size;
  if (size == 0 || images.size() % size != 0 || images.size() / size > state.page_count - pages_)
    return fail(Code::kCorrupt, fmt::format("pages of database {} came that it has not", *id_));
  const std::uint64_t at = std::uint64_t{pages_} * size;
  for (std::size_t offset = 0; offset < images.size(); offset += size) {
    const PageNo page = ++pages_;
    if (page == ltx::lock_page(size)) continue;
    checksum_ = ltx::toggle(checksum_, ltx::page_checksum(page, images.subspan(offset, size)));
  }
  return file_->write_at(at, images);
}

Result<> FolderFill::end_database() {
  if (!id_) return {};
  const DatabaseState& state = filled_.at(*id_).state;
  if (pages_ != state.page_count || checksum_ != state.position.checksum) {
    return fail(Code::kCorrupt,
                fmt::format("database {} did not come as the other node has it: {} of {} pages, "
                            "checksum {:016x} for {:016x}",
                            *id_, pages_, state.page_count, checksum_.value,
                            state.position.checksum.value));
  }
  if (pages_ > 0) OFFPRINT_TRY(mark_as_wal(*file_));
  OFFPRINT_TRY(file_->sync());
  file_.reset();
  id_.reset();
  return {};
}

Result<> FolderFill::finish(std::span<const std::uint64_t> databases, const LogBeginning& log,
                            ByteView mark) {
  OFFPRINT_TRY(end_database());
  for (auto each = filled_.begin(); each != filled_.end();) {
    if (std::ranges::find(databases, each->first) != databases.end()) {
      ++each;
      continue;
    }
    OFFPRINT_TRY(files_->remove(each->second.path));
    each = filled_.erase(each);
  }
  for (std::uint64_t id : databases) {
    if (!filled_.contains(id))
      return fail(Code::kCorrupt, fmt::format("database {} did not come", id));
  }
  OFFPRINT_TRY(files_->sync_directory(directory_ + "/databases"));
  journal::Options options;
  options.background = false;
  OFFPRINT_TRY_ASSIGN(auto journal,
                      journal::Journal::open(*files_, directory_ + "/journal", options,
                                             [](const journal::Record&) { return Result<>(); }));
  for (const auto& [id, filled] : filled_) {
    OFFPRINT_TRY(journal->append(checkpoint_record(id, filled.state, filled.state.position.txid,
                                                   FileFingerprint::of(filled.path))));
  }
  journal::Draft beginning;
  beginning.kind = journal::Kind::kTruncate;
  beginning.group = log.group;
  beginning.group_lsn = log.last;
  beginning.fencing_epoch = log.epoch;
  OFFPRINT_TRY(journal->append(std::move(beginning)));
  journal::Draft promise;
  promise.kind = journal::Kind::kPromise;
  promise.group = log.group;
  promise.fencing_epoch = log.promised;
  OFFPRINT_TRY(journal->commit(std::move(promise)));
  journal.reset();
  OFFPRINT_TRY(files_->sync_directory(directory_));
  return write_file_atomically(*files_, directory_ + "/" + kMark, mark);
}

Result<bool> FolderFill::is_finished(FileSystem& files, const std::string& directory) {
  return files.exists(folder(directory) + "/" + kMark);
}

Result<> FolderFill::take_over(FileSystem& files, const std::string& directory) {
  OFFPRINT_TRY_ASSIGN(bool waits, is_finished(files, directory));
  if (!waits) return {};
  const std::string from = folder(directory);
  // From here on the folder is nobody's until all has moved.
  OFFPRINT_TRY(files.remove(directory + "/" + kMark));
  OFFPRINT_TRY(files.sync_directory(directory));
  for (const char* name : kFolders) {
    const std::string source = fmt::format("{}/{}", from, name);
    const std::string target = fmt::format("{}/{}", directory, name);
    OFFPRINT_TRY_ASSIGN(bool is_there, files.exists(source));
    if (!is_there) continue;  // it has moved
    OFFPRINT_TRY(remove_all(files, target));
    OFFPRINT_TRY(files.rename(source, target));
    OFFPRINT_TRY(files.sync_directory(from));
    OFFPRINT_TRY(files.sync_directory(directory));
  }
  OFFPRINT_TRY(files.rename(from + "/" + kMark, directory + "/" + kMark));
  OFFPRINT_TRY(files.sync_directory(directory));
  return remove_all(files, from);
}

}  // namespace offprint::database
