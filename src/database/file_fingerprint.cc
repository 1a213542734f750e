#include "database/file_fingerprint.h"

#include <sys/stat.h>

namespace offprint::database {

std::optional<FileFingerprint> FileFingerprint::of(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  FileFingerprint result;
  result.inode = status.st_ino;
  result.size = static_cast<std::uint64_t>(status.st_size);
  result.modified_ns = std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
  return result;
}

Bytes FileFingerprint::encode() const {
  Bytes bytes;
  append_be<std::uint64_t>(bytes, inode);
  append_be<std::uint64_t>(bytes, size);
  append_be<std::uint64_t>(bytes, static_cast<std::uint64_t>(modified_ns));
  return bytes;
}

std::optional<FileFingerprint> FileFingerprint::decode(ByteView bytes) {
  if (bytes.size() != 24) return std::nullopt;
  FileFingerprint result;
  result.inode = load_be<std::uint64_t>(bytes.data());
  result.size = load_be<std::uint64_t>(bytes.data() + 8);
  result.modified_ns = static_cast<std::int64_t>(load_be<std::uint64_t>(bytes.data() + 16));
  return result;
}

}  // namespace offprint::database
