#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace offprint {

// An open file, read and written at positions. Thread: any, concurrently (as pread and pwrite).
// Closed by its destructor. Errors: kFull when the disk is full, kIo otherwise.
class File {
 public:
  virtual ~File() = default;
  // Reads up to to.size() bytes at `offset`; fewer only at the end of the file. Returns how many.
  virtual Result<std::size_t> read_at(std::uint64_t offset, std::span<std::uint8_t> to) = 0;
  // Writes all of `bytes` or fails; after a failure the range's content is undefined.
  virtual Result<> write_at(std::uint64_t offset, ByteView bytes) = 0;
  // fdatasync. After a failure nothing unsynced may be trusted, and calling again proves nothing.
  virtual Result<> sync() = 0;
  virtual Result<std::uint64_t> size() = 0;
  // Sets the size; growth reads as zeros.
  virtual Result<> truncate(std::uint64_t size) = 0;
  // Reserves space for [0, size) so that later writes in it cannot fail for lack of it; the size
  // becomes at least `size`.
  virtual Result<> allocate(std::uint64_t size) = 0;
};

struct FileStatus {
  std::uint64_t size = 0;
  std::int64_t modified_ms = 0;  // Unix time
  bool is_directory = false;
  // Others when the file was replaced by another one or written, as far as the system can tell.
  std::uint64_t inode = 0;
  std::int64_t changed_ns = 0;
};

// The operations on names that Offprint needs. Paths are as the system takes them. Thread: any.
// A created, renamed or removed name is durable only after sync_directory of its folder.
class FileSystem {
 public:
  enum class Mode {
    kRead,
    kReadWrite,
    kCreate /* read and write, made if absent */,
    kCreateNew /* must not exist */
  };

  virtual ~FileSystem() = default;
  virtual Result<std::unique_ptr<File>> open(const std::string& path, Mode mode) = 0;
  virtual Result<> rename(const std::string& from, const std::string& to) = 0;
  // The same; kConflict when `to` is there.
  virtual Result<> rename_new(const std::string& from, const std::string& to) = 0;
  // Absent is no error.
  virtual Result<> remove(const std::string& path) = 0;
  virtual Result<bool> exists(const std::string& path) = 0;
  // Nothing when it is absent.
  virtual Result<std::optional<FileStatus>> status(const std::string& path) = 0;
  virtual Result<> set_modified(const std::string& path, std::int64_t modified_ms) = 0;
  // Names (not paths) in a folder, sorted.
  virtual Result<std::vector<std::string>> list(const std::string& directory) = 0;
  // With parents; existing is no error.
  virtual Result<> create_directories(const std::string& directory) = 0;
  virtual Result<> sync_directory(const std::string& directory) = 0;

  // The machine's own files.
  static FileSystem& real();
};

// Replaces `path` atomically and durably: temporary name in the same folder, write, sync, rename,
// sync the folder.
Result<> write_file_atomically(FileSystem& files, const std::string& path, ByteView content);
// The whole of a file, at most `limit` bytes of it (kTooLarge beyond).
Result<Bytes> read_file(FileSystem& files, const std::string& path, std::uint64_t limit);

}  // namespace offprint
