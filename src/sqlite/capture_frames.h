#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <sqlite3.h>

#include "base/bytes.h"
#include "base/result.h"
#include "sqlite/capture.h"

namespace offprint::sqlite {

// The frames of one write transaction, as they were written: which page each holds, and the page
// images while they fit in memory. Frames of a transaction are numbered without gaps; a frame may
// be written again, and frames from some number on may become stale by a rollback and be written
// again later. Value type of one thread. May throw std::bad_alloc.
class FrameCollector {
 public:
  explicit FrameCollector(std::size_t memory_max) : memory_max_(memory_max) {}

  // Forgets the frames; keeps buffers of a usual size, so that small transactions allocate nothing.
  void clear();
  bool empty() const { return pages_.empty(); }
  std::uint32_t first_frame() const { return first_; }

  // A frame header was written. False when it is neither the next frame nor one noted before.
  bool note_header(std::uint32_t frame, std::uint32_t page);
  // The image of a noted frame was written. False when its header was not noted.
  bool note_image(std::uint32_t frame, ByteView image);
  // From now on images are only in the -wal.
  void drop_images() { in_memory_ = false; }

  bool contains(std::uint32_t frame) const {
    return frame >= first_ && frame - first_ < pages_.size();
  }
  std::uint32_t last_frame() const {
    return first_ + static_cast<std::uint32_t>(pages_.size()) - 1;
  }
  std::uint32_t page_of(std::uint32_t frame) const { return pages_[frame - first_]; }
  // Of all frames, in the order of writing.
  std::span<const std::uint32_t> pages() const { return pages_; }
  // Its image, nothing when it has to be read from the -wal.
  ByteView image_of(std::uint32_t frame, std::uint32_t page_size) const;

 private:
  std::size_t memory_max_;
  std::uint32_t first_ = 0;
  bool in_memory_ = true;
  std::vector<std::uint32_t> pages_;  // of frame first_ + index
  Bytes images_;  // of frame first_ + index at index * page size, while in_memory_
};

// The choice of frames that make the transaction.
struct FrameSelection {
  std::uint32_t last_frame = 0;  // the commit frame
  std::uint32_t page_count = 0;  // size after the commit
  bool cut = true;               // leave out frames after last_frame
  bool last_wins = true;         // of several frames of a page take the highest
  bool drop_beyond_size = true;  // leave out pages above page_count
};

// Collected frames as a transaction. Reused from commit to commit.
class CapturedFrames final : public CapturedTransaction {
 public:
  // Chooses and sorts. `wal` is read when images are not in memory; both must live while this is
  // used. May throw std::bad_alloc.
  void assign(const FrameCollector& frames, sqlite3_file* wal, std::uint32_t page_size,
              WalPoint point, const FrameSelection& selection);

  // Gives back the memory of an unusually long list.
  void clear();

  std::uint32_t page_size() const override { return page_size_; }
  std::uint32_t page_count() const override { return page_count_; }
  WalPoint wal_point() const override { return point_; }
  std::span<const std::uint32_t> pages() const override { return pages_; }
  Result<ByteView> image(std::size_t index) override;

 private:
  const FrameCollector* frames_ = nullptr;
  sqlite3_file* wal_ = nullptr;
  std::uint32_t page_size_ = 0;
  std::uint32_t page_count_ = 0;
  WalPoint point_;
  std::vector<std::uint32_t> pages_;
  std::vector<std::uint32_t> frame_numbers_;  // of pages_[index]
  std::vector<std::uint64_t> order_;          // page in the high half, frame in the low
  Bytes read_buffer_;
};

}  // namespace offprint::sqlite
