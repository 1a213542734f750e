#include "journal/recovery.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/assert.h"
#include "journal/segment_reader.h"

namespace offprint::journal {
namespace {

constexpr std::uint64_t kCopyChunk = 1 << 20;

// One pass over the segments; changes nothing.
class Scan {
 public:
  explicit Scan(RecoveredState& state) : state_(state), seed_(state.id.crc_seed()) {}

  // Follows the chain of records from the oldest segment to the first position that holds no valid
  // one.
  Result<> follow();
  // Looks for anything above the tail that looks like a record of this place.
  Result<> search_leftovers();
  // Is the tail where a crash may have put it?
  Result<> judge() const;

  Lsn tail() const { return tail_; }
  std::size_t tail_segment() const { return tail_segment_; }
  const std::vector<LargeReference>& large() const { return large_; }
  const std::vector<std::vector<Lsn>>& leftovers() const { return leftovers_; }

 private:
  Result<> note(const SegmentReader::Found& found, SegmentFile& segment);
  Result<> note_groups(const SegmentReader::Found& found);
  std::string place(const SegmentFile& segment, Lsn lsn) const {
    return fmt::format("{} at offset {} (lsn {})", segment.path, lsn.value - segment.begin.value,
                       lsn_text(lsn));
  }
  Result<> missing_segment(const std::string& why) const {
    return fail(Code::kCorrupt, fmt::format("the journal is damaged: {} is missing, though {}",
                                            segment_name(tail_), why));
  }
  Result<> with_place(Result<> result, const SegmentFile& segment, Lsn lsn) const {
    if (!result) return fail(result.error().with_context(place(segment, lsn)));
    return result;
  }

  RecoveredState& state_;
  const std::uint32_t seed_;
  Lsn tail_;
  std::size_t tail_segment_ = 0;
  Lsn greatest_durable_;  // in any valid record, also above the tail
  std::vector<LargeReference> large_;
  std::vector<std::vector<Lsn>> leftovers_;  // by segment
};

Result<> Scan::follow() {
  for (std::size_t index = 0; index < state_.segments.size(); ++index) {
    SegmentFile& segment = *state_.segments[index];
    SegmentReader reader(segment);
    tail_segment_ = index;
    tail_ = segment.first_record();
    bool filled = false;
    while (!filled && segment.end().value - tail_.value >= kRecordHeaderSize) {
      OFFPRINT_TRY_ASSIGN(auto found, reader.record(tail_, seed_));
      if (!found) return {};
      OFFPRINT_TRY(with_place(check_record(found->header), segment, tail_));
      OFFPRINT_TRY(with_place(note(*found, segment), segment, tail_));
      filled = found->header.kind == kFillerKind;
      tail_.value += found->header.padded_size();
    }
    tail_ = segment.end();
    bool next_is_there =
        index + 1 < state_.segments.size() && state_.segments[index + 1]->begin == segment.end();
    if (next_is_there) continue;
    // A filler is written only when the next segment is there to stay.
    if (filled) return missing_segment("the one before it says that it follows");
    return {};
  }
  return {};
}

Result<> Scan::note(const SegmentReader::Found& found, SegmentFile& segment) {
  const RecordHeader& header = found.header;
  greatest_durable_ = std::max(greatest_durable_, header.durable_lsn);
  state_.known_durable = std::max(state_.known_durable, header.durable_lsn);
  if (header.kind == kMarkKind) return note_groups(found);
  if (header.is_internal()) return {};
  GroupState& group = state_.groups[header.group];
  group.commit = std::max(group.commit, header.commit_lsn);
  if (header.group != kLocalGroup && header.kind == static_cast<std::uint8_t>(Kind::kPromise)) {
    group.promised = std::max(group.promised, header.fencing_epoch);
  } else {
    group.last = header.group_lsn;
    group.epoch = header.fencing_epoch;
  }
  auto take = [&](std::uint16_t type, ByteView value) -> Result<> {
    if (type != static_cast<std::uint16_t>(MetadataType::kLargePayload)) return {};
    OFFPRINT_TRY_ASSIGN(auto reference, parse_large_reference(value));
    segment.large_files.push_back(reference.name);
    large_.push_back(std::move(reference));
    return {};
  };
  return for_each_metadata(found.bytes.subspan(kRecordHeaderSize, header.metadata_size), take);
}

Result<> Scan::note_groups(const SegmentReader::Found& found) {
  auto take = [&](std::uint16_t type, ByteView value) -> Result<> {
    if (type == kGroupPromisesType) {
      for (; value.size() >= kGroupPromiseSize; value = value.subspan(kGroupPromiseSize)) {
        GroupState& group = state_.groups[load_be<std::uint32_t>(value.data())];
        group.promised = std::max(group.promised, Epoch{load_be<std::uint32_t>(value.data() + 4)});
      }
      return {};
    }
    if (type != kGroupStatesType) return {};
    for (; value.size() >= kGroupStateSize; value = value.subspan(kGroupStateSize)) {
      GroupState& group = state_.groups[load_be<std::uint32_t>(value.data())];
      group.last = Lsn{load_be<std::uint64_t>(value.data() + 8)};
      group.commit = std::max(group.commit, Lsn{load_be<std::uint64_t>(value.data() + 16)});
      group.epoch = Epoch{load_be<std::uint32_t>(value.data() + 4)};
    }
    return {};
  };
  return for_each_metadata(found.bytes.subspan(kRecordHeaderSize, found.header.metadata_size),
                           take);
}

Result<> Scan::search_leftovers() {
  leftovers_.resize(state_.segments.size());
  for (std::size_t index = tail_segment_; index < state_.segments.size(); ++index) {
    SegmentFile& segment = *state_.segments[index];
    SegmentReader walker(segment);
    SegmentReader reader(segment);
    Lsn at = index == tail_segment_ ? tail_ : segment.first_record();
    while (at.value + kRecordHeaderSize <= segment.end().value) {
      std::uint64_t size = std::min(kCopyChunk, segment.end().value - at.value);
      OFFPRINT_TRY_ASSIGN(ByteView chunk, walker.view(at, size));
      std::size_t offset = 0;
      for (; offset + kRecordHeaderSize <= chunk.size(); offset += kRecordAlignment) {
        if (load_be<std::uint32_t>(chunk.data() + offset) != kRecordMagic) continue;
        Lsn lsn{at.value + offset};
        if (!claims_lsn(chunk.subspan(offset), lsn)) continue;
        leftovers_[index].push_back(lsn);
        OFFPRINT_TRY_ASSIGN(auto found, reader.record(lsn, seed_));
        if (!found) continue;
        auto sane = check_record(found->header);
        if (!sane && sane.error().code() == Code::kInvalid)
          return with_place(std::move(sane), segment, lsn);
        if (sane) greatest_durable_ = std::max(greatest_durable_, found->header.durable_lsn);
      }
      if (offset == 0) break;
      at.value += offset;
    }
  }
  return {};
}

Result<> Scan::judge() const {
  if (greatest_durable_ <= tail_) return {};
  const SegmentFile& segment = *state_.segments[tail_segment_];
  if (tail_ == segment.end()) {
    return missing_segment("everything before lsn " + lsn_text(greatest_durable_) + " was durable");
  }
  return fail(Code::kCorrupt, fmt::format("the journal is damaged: no valid record in {}, though "
                                          "everything before lsn {} was durable",
                                          place(segment, tail_), lsn_text(greatest_durable_)));
}

Result<SegmentPointer> open_segment(FileSystem& files, const std::string& path, Lsn begin,
                                    JournalId& id, bool first) {
  auto segment = std::make_shared<SegmentFile>();
  segment->path = path;
  OFFPRINT_TRY_ASSIGN(segment->file, files.open(path, FileSystem::Mode::kReadWrite));
  Bytes bytes(kSegmentHeaderSize);
  OFFPRINT_TRY_ASSIGN(std::size_t got, segment->file->read_at(0, bytes));
  auto header = parse_segment_header(ByteView(bytes).first(got));
  if (!header)
    return fail(header.error().with_context(path + " at offset 0 (lsn " + lsn_text(begin) + ")"));
  if (header->begin != begin)
    return fail(Code::kCorrupt, path + ": its header says that it begins at another lsn");
  if (!first && header->id != id)
    return fail(Code::kCorrupt, path + ": belongs to another journal");
  OFFPRINT_TRY_ASSIGN(std::uint64_t size, segment->file->size());
  if (size != header->size) {
    return fail(Code::kCorrupt,
                fmt::format("{}: has {} bytes, its header says {}", path, size, header->size));
  }
  id = header->id;
  segment->begin = begin;
  segment->size = size;
  return segment;
}

Result<> open_segments(FileSystem& files, const std::string& directory, RecoveredState& state) {
  OFFPRINT_TRY_ASSIGN(auto names, files.list(directory));
  for (const std::string& name : names) {
    std::optional<Lsn> begin = parse_segment_name(name);
    if (!begin) continue;
    OFFPRINT_TRY_ASSIGN(auto segment, open_segment(files, directory + "/" + name, *begin, state.id,
                                                   state.segments.empty()));
    if (!state.segments.empty() && segment->begin < state.segments.back()->end()) {
      return fail(Code::kCorrupt, segment->path + ": overlaps the segment before it");
    }
    state.segments.push_back(std::move(segment));
  }
  return {};
}

// What survives may exist only in the page cache: writes it once more, so that a sync covers it.
Result<> rewrite(SegmentFile& segment, Lsn from, Lsn to) {
  Bytes chunk;
  for (std::uint64_t at = from.value; at < to.value; at += chunk.size()) {
    chunk.resize(std::min(kCopyChunk, to.value - at));
    OFFPRINT_TRY_ASSIGN(std::size_t got, segment.file->read_at(at - segment.begin.value, chunk));
    if (got != chunk.size())
      return fail(Code::kIo, segment.path + ": became shorter while it was read");
    OFFPRINT_TRY(segment.file->write_at(at - segment.begin.value, chunk));
  }
  return {};
}

Result<> make_survivors_durable(RecoveredState& state, const Scan& scan) {
  for (std::size_t index = 0; index <= scan.tail_segment(); ++index) {
    SegmentFile& segment = *state.segments[index];
    Lsn from = std::max(state.known_durable, segment.first_record());
    Lsn to = std::min(scan.tail(), segment.end());
    const std::vector<Lsn>* destroyed =
        index == scan.tail_segment() ? &scan.leftovers()[index] : nullptr;
    if (from < to) OFFPRINT_TRY(rewrite(segment, from, to));
    if (destroyed != nullptr) {
      static constexpr std::uint8_t kZeros[kRecordAlignment] = {};
      for (Lsn lsn : *destroyed)
        OFFPRINT_TRY(segment.file->write_at(lsn.value - segment.begin.value, kZeros));
    }
    if (from < to || (destroyed != nullptr && !destroyed->empty()))
      OFFPRINT_TRY(segment.file->sync());
  }
  return {};
}

// Segments above the tail's: the next one is kept when nothing in it could ever be taken for a
// record.
Result<> drop_segments_above(FileSystem& files, RecoveredState& state, const Scan& scan) {
  for (std::size_t index = scan.tail_segment() + 1; index < state.segments.size(); ++index) {
    SegmentPointer& segment = state.segments[index];
    bool next = segment->begin == state.segments[scan.tail_segment()]->end();
    if (next && scan.leftovers()[index].empty()) {
      state.prepared = segment;
    } else {
      OFFPRINT_TRY(files.remove(segment->path));
    }
  }
  state.segments.resize(scan.tail_segment() + 1);
  return {};
}

Result<> remove_temporaries(FileSystem& files, const std::string& directory) {
  OFFPRINT_TRY_ASSIGN(auto names, files.list(directory));
  for (const std::string& name : names) {
    if (is_temporary_segment(name)) OFFPRINT_TRY(files.remove(directory + "/" + name));
  }
  return {};
}

}  // namespace

Result<RecoveredState> recover(FileSystem& files, const std::string& directory, LargeFiles& large) {
  RecoveredState state;
  OFFPRINT_TRY(open_segments(files, directory, state));
  if (state.segments.empty()) {
    OFFPRINT_TRY(remove_temporaries(files, directory));
    return state;
  }
  Scan scan(state);
  OFFPRINT_TRY(scan.follow());
  OFFPRINT_TRY(scan.search_leftovers());
  OFFPRINT_TRY(scan.judge());
  for (const LargeReference& reference : scan.large()) OFFPRINT_TRY(large.check(reference));
  state.end = scan.tail();
  if (auto local = state.groups.find(kLocalGroup); local != state.groups.end())
    local->second.commit = local->second.last;
  // From here on it changes the disk.
  OFFPRINT_TRY(make_survivors_durable(state, scan));
  OFFPRINT_TRY(drop_segments_above(files, state, scan));
  OFFPRINT_TRY(remove_temporaries(files, directory));
  OFFPRINT_TRY(files.sync_directory(directory));
  return state;
}

Result<> visit_records(const RecoveredState& state, const RecordTaker& take) {
  std::uint32_t seed = state.id.crc_seed();
  for (const SegmentPointer& segment : state.segments) {
    SegmentReader reader(*segment);
    Lsn at = segment->first_record();
    Lsn end = std::min(segment->end(), state.end);
    while (at.value + kRecordHeaderSize <= end.value) {
      OFFPRINT_TRY_ASSIGN(auto found, reader.record(at, seed));
      if (!found)
        return fail(Code::kIo, segment->path + ": a record changed while the journal was opened");
      if (found->header.kind == kFillerKind) break;
      if (!found->header.is_internal()) {
        OFFPRINT_TRY_ASSIGN(auto record, decode_record(found->header, found->bytes, nullptr));
        OFFPRINT_TRY(take(record));
      }
      at.value += found->header.padded_size();
    }
  }
  return {};
}

}  // namespace offprint::journal
