#include "journal/pending.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

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

Result<> GroupTable::advance(RecordHeader& header, std::optional<Lsn> wanted) {
  GroupState& state = states[header.group];
  const bool replicated = header.group != kLocalGroup;
  const auto kind = static_cast<Kind>(header.kind);
  Lsn at{state.last.value + 1};
  if (replicated && kind == Kind::kPromise) at = state.last;
  const bool is_new = state == GroupState{};
  if (replicated && kind == Kind::kTruncate && wanted && (is_new || *wanted <= state.last))
    at = *wanted;
  bool numbered = replicated && kind != Kind::kPromise;
  if (numbered != wanted.has_value() || (wanted && *wanted != at)) {
    return fail(Code::kInvalid,
                fmt::format("journal: group {} is at record {}; this one cannot be number {}",
                            header.group, state.last.value, wanted ? wanted->value : 0));
  }
  if (at < state.commit)
    return fail(Code::kInvalid, "journal: what is committed cannot be cut off");
  header.group_lsn = at;
  header.commit_lsn = state.commit;
  header.previous_epoch = state.epoch;
  if (replicated && kind == Kind::kPromise) {
    state.promised = std::max(state.promised, header.fencing_epoch);
    return {};
  }
  state.last = at;
  state.epoch = header.fencing_epoch;
  return {};
}

Bytes GroupTable::encode() const {
  Bytes value, promises;
  for (const auto& [group, state] : states) {
    append_be<std::uint32_t>(value, group);
    append_be<std::uint32_t>(value, state.epoch.value);
    append_be<std::uint64_t>(value, state.last.value);
    append_be<std::uint64_t>(value, state.commit.value);
    if (group == kLocalGroup) continue;
    append_be<std::uint32_t>(promises, group);
    append_be<std::uint32_t>(promises, state.promised.value);
  }
  Bytes metadata;
  append_metadata(metadata, kGroupStatesType, value);
  if (!promises.empty()) append_metadata(metadata, kGroupPromisesType, promises);
  return metadata;
}

std::uint64_t GroupTable::mark_size() const {
  std::size_t replicated = states.size() - states.count(kLocalGroup);
  std::uint64_t length = kRecordHeaderSize + kMetadataHeaderSize + states.size() * kGroupStateSize;
  if (replicated > 0) length += kMetadataHeaderSize + replicated * kGroupPromiseSize;
  return (length + kRecordAlignment - 1) & ~(kRecordAlignment - 1);
}

}  // namespace offprint::journal
