#include "sqlite/capture_frames.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "sqlite/capture_wal.h"

namespace offprint::sqlite {
namespace {

constexpr std::size_t kUsualFrames =
    16 << 10;  // lists longer than this are not kept between transactions

}  // namespace

void FrameCollector::clear() {
  if (pages_.capacity() > kUsualFrames) pages_ = {};
  pages_.clear();
  first_ = 0;
  in_memory_ = true;
}

bool FrameCollector::note_header(std::uint32_t frame, std::uint32_t page) {
  if (pages_.empty()) first_ = frame;
  if (frame < first_ || frame - first_ > pages_.size()) return false;
  if (frame - first_ == pages_.size()) {
    pages_.push_back(page);
  } else {
    pages_[frame - first_] = page;
  }
  return true;
}

bool FrameCollector::note_image(std::uint32_t frame, ByteView image) {
  if (!contains(frame)) return false;
  if (!in_memory_) return true;
  std::size_t end = (frame - first_ + std::size_t{1}) * image.size();
  if (end > memory_max_) {
    in_memory_ = false;
    return true;
  }
  if (end > images_.size())
    images_.resize(std::min(std::max(2 * end, std::size_t{32} << 10), memory_max_));
  std::memcpy(images_.data() + (end - image.size()), image.data(), image.size());
  return true;
}

ByteView FrameCollector::image_of(std::uint32_t frame, std::uint32_t page_size) const {
  OFFPRINT_ASSERT(contains(frame));
  if (!in_memory_) return {};
  return ByteView(images_).subspan((frame - first_) * std::size_t{page_size}, page_size);
}

void CapturedFrames::assign(const FrameCollector& frames, sqlite3_file* wal,
                            std::uint32_t page_size, WalPoint point,
                            const FrameSelection& selection) {
  frames_ = &frames;
  wal_ = wal;
  page_size_ = page_size;
  page_count_ = selection.page_count;
  point_ = point;
  std::uint32_t last = selection.cut ? selection.last_frame : frames.last_frame();
  order_.clear();
  for (std::uint32_t frame = frames.first_frame(); frame <= last; ++frame) {
    std::uint32_t page = frames.page_of(frame);
    if (page <= page_count_ || !selection.drop_beyond_size)
      order_.push_back(std::uint64_t{page} << 32 | frame);
  }
  std::ranges::sort(order_);
  pages_.clear();
  frame_numbers_.clear();
  for (std::uint64_t entry : order_) {
    auto page = static_cast<std::uint32_t>(entry >> 32);
    auto frame = static_cast<std::uint32_t>(entry);
    if (pages_.empty() || pages_.back() != page) {
      pages_.push_back(page);
      frame_numbers_.push_back(frame);
    } else if (selection.last_wins) {
      frame_numbers_.back() = frame;
    }
  }
}

void CapturedFrames::clear() {
  if (order_.capacity() > kUsualFrames) *this = CapturedFrames();
}

Result<ByteView> CapturedFrames::image(std::size_t index) {
  OFFPRINT_ASSERT(index < frame_numbers_.size());
  std::uint32_t frame = frame_numbers_[index];
  ByteView image = frames_->image_of(frame, page_size_);
  if (!image.empty()) return image;
  read_buffer_.resize(page_size_);
  auto offset = static_cast<sqlite3_int64>(frame_offset(frame, page_size_) + kFrameHeaderSize);
  int code = wal_->pMethods->xRead(wal_, read_buffer_.data(), static_cast<int>(page_size_), offset);
  if (code != SQLITE_OK)
    return fail(sqlite_error(code).with_context("read a page back from the -wal"));
  return ByteView(read_buffer_);
}

}  // namespace offprint::sqlite
