#pragma once

#include "ltx/codec.h"

namespace offprint::ltx {

// A window on a ByteSource, so that its bytes can be looked at before they are taken. Internal to
// this folder. Thread: one. The source must outlive it.
class BufferedInput {
 public:
  explicit BufferedInput(ByteSource& source) : source_(source) {}

  // The most that need() may be asked for from now on; what is buffered stays.
  void reserve(std::size_t capacity);
  // The next `size` bytes, not yet taken; valid until the next call. kCorrupt when the source ends
  // before.
  Result<ByteView> need(std::size_t size);
  // Takes bytes that need() has shown.
  void take(std::size_t size);
  // The next 1 to `size_max` bytes, taken. kCorrupt at the end of the source.
  Result<ByteView> take_some(std::size_t size_max);
  Result<bool> at_end();
  // Bytes taken so far.
  std::uint64_t position() const { return position_; }

 private:
  Result<> fill(std::size_t size);

  ByteSource& source_;
  std::unique_ptr<std::uint8_t[]> buffer_;
  std::size_t capacity_ = 0;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  bool source_ended_ = false;
  std::uint64_t position_ = 0;
};

}  // namespace offprint::ltx
