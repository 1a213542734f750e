#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/bytes.h"

namespace offprint::database {

// Tells cheaply whether a file was written since: as it was left when it was closed.
struct FileFingerprint {
  std::uint64_t inode = 0;
  std::uint64_t size = 0;
  std::int64_t modified_ns = 0;
  bool operator==(const FileFingerprint&) const = default;

  // Nothing: no such file.
  static std::optional<FileFingerprint> of(const std::string& path);
  Bytes encode() const;
  static std::optional<FileFingerprint> decode(ByteView bytes);
};

}  // namespace offprint::database
