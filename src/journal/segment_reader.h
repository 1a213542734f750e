#pragma once

#include <optional>

#include "journal/segment.h"

namespace offprint::journal {

// Reads a segment front to back through a window, so that a record costs about one read of the
// file. Thread: one. Lifetime: `segment` must outlive it.
class SegmentReader {
 public:
  explicit SegmentReader(SegmentFile& segment) : segment_(segment) {}

  // `size` bytes at `lsn`, which must lie within the segment; fewer where the file ends early.
  // Valid until the next call.
  Result<ByteView> view(Lsn lsn, std::uint64_t size);
  // The record at `lsn`, when a whole and verified one is there. Valid until the next call.
  struct Found {
    RecordHeader header;
    ByteView bytes;  // padded_size() of them
  };
  Result<std::optional<Found>> record(Lsn lsn, std::uint32_t seed);

 private:
  SegmentFile& segment_;
  Bytes window_;
  std::uint64_t window_at_ = 0;  // offset in the file
};

}  // namespace offprint::journal
