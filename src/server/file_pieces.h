#pragma once

#include <cstdio>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace offprint::server {

// A file's bytes from where it stands, piece by piece. Thread: one. Blocks.
class FilePieces {
 public:
  explicit FilePieces(std::FILE* file) : file_(file), piece_(kPieceBytes) {}
  // Valid until the next call; empty at the end.
  Result<std::string_view> next();

 private:
  static constexpr std::size_t kPieceBytes = 64 << 10;

  std::FILE* file_;
  std::vector<char> piece_;
};

}  // namespace offprint::server
