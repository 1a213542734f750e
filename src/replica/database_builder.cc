#include "replica/database_builder.h"

#include <algorithm>

#include <fmt/format.h>

namespace offprint::replica {

DatabaseBuilder::DatabaseBuilder(std::unique_ptr<File> file, std::uint32_t page_size)
    : file_(std::move(file)), page_size_(page_size) {}

Result<DatabaseBuilder> DatabaseBuilder::create(FileSystem& files, const std::string& path,
                                                std::uint32_t page_size) {
  OFFPRINT_TRY(files.remove(path));
  OFFPRINT_TRY_ASSIGN(auto file, files.open(path, FileSystem::Mode::kCreateNew));
  return DatabaseBuilder(std::move(file), page_size);
}

Result<> DatabaseBuilder::put(PageNo page, ByteView image) {
  if (page <= last_ || image.size() != page_size_ || page == ltx::lock_page(page_size_)) {
    return fail(Code::kCorrupt, fmt::format("page {} of {} bytes in a snapshot, after page {}",
                                            page, image.size(), last_));
  }
  last_ = page;
  ++count_;
  rolling_ = ltx::toggle(rolling_, ltx::page_checksum(page, image));
  std::uint64_t offset = (std::uint64_t{page} - 1) * page_size_;
  if (page != 1) return file_->write_at(offset, image);
  std::copy_n(image.begin(), header_.size(), header_.begin());
  Bytes copy(image.begin(), image.end());
  copy[18] = 2;
  copy[19] = 2;
  OFFPRINT_TRY(file_->write_at(offset, copy));
  mask_probe(1, copy);
  probe_ = Probe{1, false, Checksum{}, ltx::page_checksum(1, copy)};
  return {};
}

Result<> DatabaseBuilder::finish(std::uint32_t page_count, Checksum expected) {
  PageNo lock_page = ltx::lock_page(page_size_);
  std::uint32_t needed = page_count - (page_count >= lock_page ? 1 : 0);
  if (count_ != needed || last_ > page_count) {
    return fail(Code::kCorrupt, fmt::format("the snapshot of {} pages lacks {} of them", page_count,
                                            needed - count_));
  }
  if (rolling_ != expected) {
    return fail(Code::kCorrupt,
                fmt::format("the snapshot's pages add up to checksum {:016x}, not {:016x}",
                            rolling_.value, expected.value));
  }
  OFFPRINT_TRY(file_->truncate(std::uint64_t{page_count} * page_size_));
  Result<> synced = file_->sync();
  // Before SQLite opens the file: closing any descriptor of it would drop the locks that this
  // process has on it.
  file_.reset();
  return synced;
}

}  // namespace offprint::replica
