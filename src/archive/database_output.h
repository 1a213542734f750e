#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/file_system.h"
#include "base/result.h"
#include "ltx/types.h"

namespace offprint::archive {

// An SQLite file that appears under its name when it is whole: written beside it under another one,
// synced, renamed. Removed again unless it was published. Thread: one. Memory: 1 MiB.
class DatabaseOutput {
 public:
  // kConflict: a file is there and `replace` is false, or it is a copy that a follower keeps.
  static Result<> check(FileSystem& files, const std::string& path, bool replace);

  DatabaseOutput(FileSystem& files, std::string path);
  ~DatabaseOutput();
  DatabaseOutput(const DatabaseOutput&) = delete;
  DatabaseOutput& operator=(const DatabaseOutput&) = delete;

  Result<> open(std::uint32_t page_size);
  // Ascending; pages left out read as zeros.
  Result<> put(PageNo page, ByteView image);
  // With `replace`, what another database of this name left beside it goes too (-wal, -journal).
  Result<> publish(std::uint32_t page_count, bool replace);

  // The name of a file that belongs to this output until it is published or given up.
  const std::string& temporary() const { return temporary_; }

 private:
  Result<> flush();

  FileSystem& files_;
  const std::string path_, temporary_;
  std::unique_ptr<File> file_;
  std::uint32_t page_size_ = 0;
  Bytes gathered_;
  std::uint64_t gathered_at_ = 0;
};

}  // namespace offprint::archive
