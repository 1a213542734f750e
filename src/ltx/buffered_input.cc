#include "ltx/buffered_input.h"

#include <algorithm>

#include "base/assert.h"

namespace offprint::ltx {

void BufferedInput::reserve(std::size_t capacity) {
  if (capacity <= capacity_) return;
  auto larger = std::make_unique_for_overwrite<std::uint8_t[]>(capacity);
  if (end_ > begin_) std::memcpy(larger.get(), buffer_.get() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  buffer_ = std::move(larger);
  capacity_ = capacity;
}

// Buffers at least `size` bytes unless the source has no more.
Result<> BufferedInput::fill(std::size_t size) {
  if (end_ - begin_ >= size || source_ended_) return {};
  OFFPRINT_ASSERT(size <= capacity_);
  std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  const std::size_t room = capacity_ - end_;
  OFFPRINT_TRY_ASSIGN(const std::size_t got, source_.read({buffer_.get() + end_, room}));
  OFFPRINT_ASSERT(got <= room);
  source_ended_ = got < room;
  end_ += got;
  return {};
}

Result<ByteView> BufferedInput::need(std::size_t size) {
  OFFPRINT_TRY(fill(size));
  if (end_ - begin_ < size) return fail(Code::kCorrupt, "LTX file ends early");
  return ByteView{buffer_.get() + begin_, size};
}

void BufferedInput::take(std::size_t size) {
  OFFPRINT_ASSERT(size <= end_ - begin_);
  begin_ += size;
  position_ += size;
}

Result<ByteView> BufferedInput::take_some(std::size_t size_max) {
  OFFPRINT_TRY(fill(1));
  const std::size_t size = std::min(size_max, end_ - begin_);
  if (size == 0) return fail(Code::kCorrupt, "LTX file ends early");
  const ByteView bytes{buffer_.get() + begin_, size};
  take(size);
  return bytes;
}

Result<bool> BufferedInput::at_end() {
  OFFPRINT_TRY(fill(1));
  return end_ == begin_;
}

}  // namespace offprint::ltx
