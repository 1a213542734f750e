#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "journal/format.h"
#include "journal/segment.h"

namespace offprint::journal {

// Bytes to be written to one segment in one go.
struct PendingChunk {
  SegmentPointer segment;
  std::uint64_t offset = 0;
  Bytes bytes;
};

// Records that have a position and are not yet written. Thread: one at a time (the journal's
// mutex).
class PendingBuffer {
 public:
  // Encodes a record at header.lsn, which follows the last one added, or begins a segment.
  void add(const SegmentPointer& segment, const RecordHeader& header, std::uint32_t body,
           ByteView metadata, ByteView payload);
  // Takes everything out: one chunk for each segment, oldest first.
  std::vector<PendingChunk> take();
  // The memory of what was written, for the next batch.
  void give_back(std::vector<PendingChunk> written);
  std::uint64_t size_bytes() const { return size_bytes_; }

 private:
  std::vector<PendingChunk> chunks_;
  Bytes spare_;
  std::uint64_t size_bytes_ = 0;
};

// Where each group's log stands. Thread: one at a time (the journal's mutex).
struct GroupTable {
  std::map<std::uint32_t, GroupState> states;

  bool admits(std::uint32_t group) const {
    return states.size() < kGroupCountMax || states.contains(group);
  }
  // Gives the record its place in its group's log. kInvalid: it cannot have the one that it wants.
  Result<> advance(RecordHeader& header, std::optional<Lsn> wanted);
  // As metadata of a mark, and how long that mark is in the journal.
  Bytes encode() const;
  std::uint64_t mark_size() const;
};

}  // namespace offprint::journal
