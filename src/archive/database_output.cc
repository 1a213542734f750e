#include "archive/database_output.h"

#include <unistd.h>

#include <fmt/format.h>

namespace offprint::archive {
namespace {

constexpr std::size_t kGatherBytes = 1 << 20;

// Files beside a database that SQLite would take for parts of it.
constexpr const char* kParts[] = {"-wal", "-journal", "-shm"};

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

Result<> DatabaseOutput::check(FileSystem& files, const std::string& path, bool replace) {
  OFFPRINT_TRY_ASSIGN(const bool followed, files.exists(path + "-offprint"));
  if (followed) {
    return fail(Code::kConflict,
                fmt::format("{} is a copy that `offprint follow` keeps; remove {}-offprint to give "
                            "that up",
                            path, path));
  }
  OFFPRINT_TRY_ASSIGN(const auto status, files.status(path));
  if (status && status->is_directory)
    return fail(Code::kConflict, fmt::format("{} is a folder", path));
  if (replace) return {};
  if (status) return fail(Code::kConflict, fmt::format("{} is there already", path));
  for (const char* part : kParts) {
    OFFPRINT_TRY_ASSIGN(const bool there, files.exists(path + part));
    if (there) {
      return fail(Code::kConflict,
                  fmt::format("{}{} is there already, left by another database", path, part));
    }
  }
  return {};
}

DatabaseOutput::DatabaseOutput(FileSystem& files, std::string path)
    : files_(files),
      path_(std::move(path)),
      temporary_(fmt::format("{}-restore-{}", path_, ::getpid())) {}

DatabaseOutput::~DatabaseOutput() {
  if (page_size_ != 0) (void)files_.remove(temporary_);
}

Result<> DatabaseOutput::open(std::uint32_t page_size) {
  OFFPRINT_TRY(files_.remove(temporary_));
  page_size_ = page_size;
  OFFPRINT_TRY_ASSIGN(file_, files_.open(temporary_, FileSystem::Mode::kCreateNew));
  gathered_.reserve(kGatherBytes + page_size);
  return {};
}

Result<> DatabaseOutput::put(PageNo page, ByteView image) {
  const std::uint64_t offset = (std::uint64_t{page} - 1) * page_size_;
  if (gathered_.size() >= kGatherBytes || offset != gathered_at_ + gathered_.size())
    OFFPRINT_TRY(flush());
  if (gathered_.empty()) gathered_at_ = offset;
  append(gathered_, image);
  return {};
}

Result<> DatabaseOutput::flush() {
  if (gathered_.empty()) return {};
  OFFPRINT_TRY(file_->write_at(gathered_at_, gathered_));
  gathered_.clear();
  return {};
}

Result<> DatabaseOutput::publish(std::uint32_t page_count, bool replace) {
  OFFPRINT_TRY(flush());
  OFFPRINT_TRY(file_->truncate(std::uint64_t{page_count} * page_size_));
  OFFPRINT_TRY(file_->sync());
  file_.reset();
  OFFPRINT_TRY(check(files_, path_, replace));
  if (replace) {
    // Before the rename: the new file must never be seen with the old one's parts.
    for (const char* part : kParts) OFFPRINT_TRY(files_.remove(path_ + part));
    OFFPRINT_TRY(files_.sync_directory(folder_of(path_)));
    OFFPRINT_TRY(files_.rename(temporary_, path_));
  } else {
    OFFPRINT_TRY(files_.rename_new(temporary_, path_));
  }
  page_size_ = 0;
  return files_.sync_directory(folder_of(path_));
}

}  // namespace offprint::archive
