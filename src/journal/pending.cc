#include "journal/pending.h"

#include <utility>

#include "base/assert.h"

namespace offprint::journal {
namespace {
// A batch larger than this is rare; its memory is not kept.
constexpr std::size_t kKeptBytesMax = 1 << 20;
}  // namespace

void PendingBuffer::add(const SegmentPointer& segment, const RecordHeader& header,
                        std::uint32_t body, ByteView metadata, ByteView payload) {
  std::uint64_t offset = header.lsn.value - segment->begin.value;
  if (chunks_.empty() || chunks_.back().segment != segment) {
    chunks_.push_back({segment, offset, std::move(spare_)});
    spare_ = {};
  }
  Bytes& to = chunks_.back().bytes;
  OFFPRINT_ASSERT(chunks_.back().offset + to.size() == offset);
  OFFPRINT_ASSERT(kRecordHeaderSize + metadata.size() + payload.size() == header.length);
  OFFPRINT_ASSERT(header.lsn.value + header.padded_size() <= segment->end().value);
  std::uint8_t head[kRecordHeaderSize];
  encode_record_header(header, body, head);
  append(to, head);
  append(to, metadata);
  append(to, payload);
  to.resize(to.size() + (header.padded_size() - header.length));
  size_bytes_ += header.padded_size();
}

std::vector<PendingChunk> PendingBuffer::take() {
  size_bytes_ = 0;
  return std::exchange(chunks_, {});
}

void PendingBuffer::give_back(std::vector<PendingChunk> written) {
  if (written.empty()) return;
  Bytes& bytes = written.front().bytes;
  if (bytes.capacity() > kKeptBytesMax || bytes.capacity() <= spare_.capacity()) return;
  bytes.clear();
  spare_ = std::move(bytes);
}

void GroupTable::advance(RecordHeader& header) {
  GroupState& state = states[header.group];
  header.group_lsn = Lsn{state.last.value + 1};
  header.commit_lsn = state.commit;
  header.previous_epoch = state.epoch;
  state.last = header.group_lsn;
  state.epoch = header.fencing_epoch;
}

Bytes GroupTable::encode() const {
  Bytes value;
  for (const auto& [group, state] : states) {
    append_be<std::uint32_t>(value, group);
    append_be<std::uint32_t>(value, state.epoch.value);
    append_be<std::uint64_t>(value, state.last.value);
    append_be<std::uint64_t>(value, state.commit.value);
  }
  Bytes metadata;
  append_metadata(metadata, kGroupStatesType, value);
  return metadata;
}

std::uint64_t GroupTable::mark_size() const {
  std::uint64_t length = kRecordHeaderSize + kMetadataHeaderSize + states.size() * kGroupStateSize;
  return (length + kRecordAlignment - 1) & ~(kRecordAlignment - 1);
}

}  // namespace offprint::journal
