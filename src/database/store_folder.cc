#include "database/store_folder.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "database/environment.h"

namespace offprint::database {

std::string database_file(const std::string& directory, std::uint64_t id) {
  return fmt::format("{}/databases/{:016x}.db", directory, id);
}

Result<> mark_as_wal(File& file) {
  constexpr std::array<std::uint8_t, 2> kWal{2, 2};
  return file.write_at(kWriteVersion, kWal);
}

Result<> make_store_folder(FileSystem& files, const std::string& directory) {
  OFFPRINT_TRY(files.create_directories(directory + "/databases"));
  OFFPRINT_TRY(files.sync_directory(directory));
  auto at = std::filesystem::path(directory).lexically_normal();
  if (!at.has_filename()) at = at.parent_path();  // it ended in a slash
  bool is_parent = true;
  while (at.has_relative_path()) {
    at = at.parent_path();
    auto synced = files.sync_directory(at.empty() ? "." : at.string());
    // Those further up may not be ours to open; then they were there before.
    if (std::exchange(is_parent, false)) OFFPRINT_TRY(std::move(synced));
  }
  return {};
}

Result<> check_journal_is_there(FileSystem& files, const std::string& directory) {
  auto has = [&](const char* folder, const char* suffix) -> Result<bool> {
    OFFPRINT_TRY_ASSIGN(bool there, files.exists(directory + folder));
    if (!there) return false;
    OFFPRINT_TRY_ASSIGN(auto names, files.list(directory + folder));
    return std::any_of(names.begin(), names.end(),
                       [&](const std::string& name) { return name.ends_with(suffix); });
  };
  OFFPRINT_TRY_ASSIGN(bool journal, has("/journal", ".seg"));
  OFFPRINT_TRY_ASSIGN(bool databases, has("/databases", ".db"));
  if (journal || !databases) return {};
  return fail(Code::kCorrupt,
              fmt::format("{0}/databases has databases, but {0}/journal is missing or empty: it "
                          "belongs to them, and holds their newest transactions",
                          directory));
}

Result<> check_is_whole(FileSystem& files, const std::string& directory) {
  OFFPRINT_TRY_ASSIGN(bool is_partial, files.exists(directory + "/" + kRestoringFile));
  if (!is_partial) return {};
  return fail(Code::kInvalid,
              fmt::format("{0} is not restored yet: run offprint restore-node again, it goes on "
                          "where it stopped ({0}/{1})",
                          directory, kRestoringFile));
}

Result<> finish_adoption(FileSystem& files, const std::string& path) {
  OFFPRINT_TRY_ASSIGN(bool waits, files.exists(path + kAdoptedSuffix));
  if (!waits) return {};
  OFFPRINT_TRY(remove_database_files(files, path));
  OFFPRINT_TRY(files.rename(path + kAdoptedSuffix, path));
  return files.sync_directory(path.substr(0, path.rfind('/')));
}

Result<> finish_adoptions(FileSystem& files, const std::string& directory,
                          const std::function<bool(std::uint64_t id)>& was_written) {
  const std::string folder = directory + "/databases";
  OFFPRINT_TRY_ASSIGN(auto names, files.list(folder));
  for (const std::string& name : names) {
    if (!name.ends_with(kAdoptedSuffix)) continue;
    std::uint64_t id = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), id, 16).ec != std::errc()) continue;
    if (was_written(id)) {
      OFFPRINT_TRY(finish_adoption(files, database_file(directory, id)));
    } else {
      OFFPRINT_TRY(files.remove(folder + "/" + name));
    }
  }
  return {};
}

Result<> remove_orphans(FileSystem& files, const std::string& directory,
                        std::vector<std::string> known) {
  const std::string folder = directory + "/databases";
  std::sort(known.begin(), known.end());
  OFFPRINT_TRY_ASSIGN(auto names, files.list(folder));
  for (const std::string& name : names) {
    std::string path = folder + "/" + name.substr(0, name.find(".db") + 3);
    if (name.size() < 19 || name.substr(16, 3) != ".db") continue;
    if (name.contains(".db-past-")) {  // it was to have no name
      OFFPRINT_TRY(files.remove(folder + "/" + name));
      continue;
    }
    if (std::binary_search(known.begin(), known.end(), path)) continue;
    log::info("removing {}/{}: its database was dropped", folder, name);
    OFFPRINT_TRY(files.remove(folder + "/" + name));
  }
  return {};
}

bool has_no_content(FileSystem& files, const std::string& path) {
  constexpr std::size_t kHeaderSize = 100, kPageSizeOffset = 16;
  constexpr std::uint64_t kEmptyPages = 2;  // the second one with auto_vacuum
  auto file = files.open(path, FileSystem::Mode::kRead);
  if (!file) return file.error().code() == Code::kNotFound;
  auto size = (*file)->size();
  if (!size) return false;
  std::array<std::uint8_t, kHeaderSize> header{};
  if (*size < header.size()) return true;
  if (auto read = (*file)->read_at(0, header); !read || *read != header.size()) return false;
  std::uint64_t page_size = load_be<std::uint16_t>(header.data() + kPageSizeOffset);
  if (page_size == 1) page_size = 65536;
  return *size <= kEmptyPages * page_size;
}

}  // namespace offprint::database
