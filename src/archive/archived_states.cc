#include "archive/archived_states.h"

#include <fmt/format.h>

#include "base/log.h"
#include "database/file_snapshot.h"

namespace offprint::archive {
Result<std::unique_ptr<ArchivedStates>> ArchivedStates::open(ObjectStore& objects,
                                                             const Options& options) {
  FileSystem& files = *options.files;
  OFFPRINT_TRY(files.create_directories(options.folder));
  OFFPRINT_TRY_ASSIGN(auto names, files.list(options.folder));
  for (const std::string& name : names) OFFPRINT_TRY(files.remove(options.folder + "/" + name));
  return std::unique_ptr<ArchivedStates>(new ArchivedStates(objects, options));
}

Result<Bookmark> ArchivedStates::bookmark_at(const database::DatabaseName& name,
                                             std::int64_t time_ms) {
  return find_moment(objects_, name.text() + "/", time_ms);
}

Result<std::unique_ptr<database::Snapshot>> ArchivedStates::snapshot_at(
    const database::DatabaseName& name, const Bookmark& at) {
  std::lock_guard lock(mutex_);
  for (auto kept = kept_.begin(); kept != kept_.end(); ++kept) {
    if (kept->name != name.text() || kept->at != at) continue;
    kept_.splice(kept_.begin(), kept_, kept);
    if (auto opened = open_kept(kept_.front())) return opened;
    kept_.pop_front();  // somebody removed it
    break;
  }
  Kept fresh;
  fresh.name = name.text();
  fresh.at = at;
  fresh.path = fmt::format("{}/{}-{}.db", options_.folder, at.text(), ++count_);
  RestoreOptions restore;
  restore.replace = true;
  restore.files = options_.files;
  OFFPRINT_TRY_ASSIGN(fresh.restored,
                      restore_file(objects_, name.text() + "/", at, fresh.path, restore));
  fresh.bytes = std::uint64_t{fresh.restored.page_size} * fresh.restored.page_count;
  kept_.push_front(std::move(fresh));
  make_room();
  return open_kept(kept_.front());
}

Result<std::unique_ptr<database::Snapshot>> ArchivedStates::open_kept(const Kept& kept) {
  OFFPRINT_TRY_ASSIGN(auto file, options_.files->open(kept.path, FileSystem::Mode::kRead));
  const Restored& restored = kept.restored;
  const Position position{kept.at.lineage, kept.at.epoch, restored.txid, restored.checksum};
  return std::make_unique<database::FileSnapshot>(std::move(file), position, restored.page_size,
                                                  restored.page_count);
}

// Who reads a file that is removed goes on reading it.
void ArchivedStates::make_room() {
  std::uint64_t bytes = 0;
  for (auto kept = kept_.begin(); kept != kept_.end();) {
    bytes += kept->bytes;
    if (kept == kept_.begin() || bytes <= options_.bytes_max) {
      ++kept;
      continue;
    }
    bytes -= kept->bytes;
    if (auto removed = options_.files->remove(kept->path); !removed)
      log::warn("{}: {}", kept->path, removed.error().message());
    kept = kept_.erase(kept);
  }
}

}  // namespace offprint::archive
