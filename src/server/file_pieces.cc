#include "server/file_pieces.h"

#include <cerrno>

namespace offprint::server {

Result<std::string_view> FilePieces::next() {
  std::size_t size = std::fread(piece_.data(), 1, piece_.size(), file_);
  if (size == 0 && std::ferror(file_) != 0) return fail(io_error("read the file", errno));
  return std::string_view(piece_.data(), size);
}

}  // namespace offprint::server
