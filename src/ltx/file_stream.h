#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "base/file_system.h"
#include "ltx/codec.h"

namespace offprint::ltx {

// What is written goes to a file, from its beginning on. `file` must outlive it. Thread: one.
class FileSink final : public ByteSink {
 public:
  explicit FileSink(File& file) : file_(file) {}
  Result<> write(ByteView bytes) override {
    OFFPRINT_TRY(file_.write_at(size_, bytes));
    size_ += bytes.size();
    return {};
  }

 private:
  File& file_;
  std::uint64_t size_ = 0;
};

// A file, from its beginning on. Thread: one.
class FileSource final : public ByteSource {
 public:
  explicit FileSource(std::shared_ptr<File> file) : file_(std::move(file)) {}
  Result<std::size_t> read(std::span<std::uint8_t> to) override {
    OFFPRINT_TRY_ASSIGN(std::size_t size, file_->read_at(offset_, to));
    offset_ += size;
    return size;
  }

 private:
  const std::shared_ptr<File> file_;
  std::uint64_t offset_ = 0;
};

// All that is left of `from`.
inline Result<> copy_bytes(ByteSource& from, ByteSink& to) {
  Bytes piece(64 << 10);
  for (;;) {
    OFFPRINT_TRY_ASSIGN(std::size_t got, from.read(piece));
    if (got == 0) return {};
    OFFPRINT_TRY(to.write(ByteView(piece).first(got)));
  }
}

}  // namespace offprint::ltx
