#include "archive/archived_states.h"

#include <fmt/format.h>

#include "base/log.h"

namespace offprint::archive {
namespace {

// A database file that nobody writes.
class FileSnapshot final : public database::Snapshot {
 public:
  FileSnapshot(std::unique_ptr<File> file, const Restored& restored)
      : file_(std::move(file)), restored_(restored), buffer_(restored.page_size) {}
  Position position() const override {
    return {restored_.bookmark->lineage, restored_.bookmark->epoch, restored_.txid,
            restored_.checksum};
  }
  std::uint32_t page_size() const override { return restored_.page_size; }
  std::uint32_t page_count() const override { return restored_.page_count; }
  Result<ByteView> page(PageNo page) override {
    if (page == 0 || page > restored_.page_count)
      return fail(Code::kNotFound, fmt::format("page {} does not exist", page));
    OFFPRINT_TRY_ASSIGN(std::size_t size,
                        file_->read_at(std::uint64_t{page - 1} * buffer_.size(), buffer_));
    if (size != buffer_.size()) return fail(Code::kIo, "a restored file has become shorter");
    return ByteView(buffer_);
  }

 private:
  std::unique_ptr<File> file_;
  const Restored restored_;
  Bytes buffer_;
};

}  // namespace

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
  return std::make_unique<FileSnapshot>(std::move(file), kept.restored);
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
