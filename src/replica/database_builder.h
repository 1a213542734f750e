#pragma once

#include <array>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/file_system.h"
#include "base/result.h"
#include "ltx/checksum.h"
#include "ltx/types.h"
#include "replica/position_file.h"

namespace offprint::replica {

// Writes an SQLite database file that nobody has open yet, page by page, without SQLite: the images
// are whole already. Thread: one. Memory: one page.
class DatabaseBuilder {
 public:
  // Replaces `path`.
  static Result<DatabaseBuilder> create(FileSystem& files, const std::string& path,
                                        std::uint32_t page_size);
  // Ascending; kCorrupt when not. Page 1 is written with journal mode WAL, else as it is.
  Result<> put(PageNo page, ByteView image);
  // Checks that all `page_count` pages came and add up to `expected` (kCorrupt), then fsyncs and
  // closes the file.
  Result<> finish(std::uint32_t page_count, Checksum expected);
  // Of page 1 as it came.
  const std::array<std::uint8_t, kDatabaseHeaderSize>& header() const { return header_; }
  // The first page tells whether the file is in place; none in a database without pages.
  Probe probe() const { return probe_; }

 private:
  DatabaseBuilder(std::unique_ptr<File> file, std::uint32_t page_size);
  std::unique_ptr<File> file_;
  std::uint32_t page_size_;
  PageNo last_ = 0;
  std::uint32_t count_ = 0;
  Checksum rolling_ = ltx::kEmptyDatabase;
  std::array<std::uint8_t, kDatabaseHeaderSize> header_{};
  Probe probe_;
};

}  // namespace offprint::replica
