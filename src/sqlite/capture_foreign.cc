#include "sqlite/capture_foreign.h"

#include <optional>

namespace offprint::sqlite {
namespace {

std::optional<FrameHeader> read_frame_header(sqlite3_file* wal, std::uint32_t frame,
                                             std::uint32_t page_size) {
  std::uint8_t raw[kFrameHeaderSize];
  auto offset = static_cast<sqlite3_int64>(frame_offset(frame, page_size));
  if (wal->pMethods->xRead(wal, raw, sizeof raw, offset) != SQLITE_OK) return std::nullopt;
  return FrameHeader::decode(raw);
}

// Notes frames first..now.last_frame. Returns the number of commits among them; nothing when a
// frame is not of this generation or the last one is not the commit that the wal-index speaks of.
std::optional<std::uint32_t> note_frames(std::uint32_t first, const WalIndexHeader& now,
                                         sqlite3_file* wal, FrameCollector& frames) {
  std::uint32_t commits = 0;
  for (std::uint32_t frame = first; frame <= now.last_frame; ++frame) {
    std::optional<FrameHeader> header = read_frame_header(wal, frame, now.page_size);
    if (!header || header->salt1 != now.salt1 || header->salt2 != now.salt2) return std::nullopt;
    frames.note_header(frame, header->page);
    if (header->size_after_commit != 0) ++commits;
    if (frame == now.last_frame &&
        (header->size_after_commit != now.page_count || header->checksum1 != now.checksum1 ||
         header->checksum2 != now.checksum2)) {
      return std::nullopt;
    }
  }
  return commits;
}

// Whether the frame that our last transaction ended with still stands in the -wal.
bool own_frame_stands(const WalIndexHeader& left, sqlite3_file* wal) {
  if (left.last_frame == 0) return true;
  std::optional<FrameHeader> header = read_frame_header(wal, left.last_frame, left.page_size);
  return header && header->salt1 == left.salt1 && header->salt2 == left.salt2 &&
         header->checksum1 == left.checksum1 && header->checksum2 == left.checksum2;
}

}  // namespace

ForeignChange find_foreign_change(const WalIndexHeader& left, const WalIndexHeader& now,
                                  sqlite3_file* wal, FrameCollector& frames) {
  if (now == left) return ForeignChange::kNone;
  frames.clear();
  frames.drop_images();
  bool has_salts = now.salt1 != 0 || now.salt2 != 0;
  if (now.same_generation(left)) {
    if (!has_salts)
      return ForeignChange::kUnknown;  // the -wal never had a header, but something changed
    // Only the change counter differs: the wal-index was recovered.
    if (now.last_frame == left.last_frame && (now.last_frame == 0 || now.same_checksum(left))) {
      return ForeignChange::kNone;
    }
    if (now.last_frame < left.last_frame || wal == nullptr || !own_frame_stands(left, wal)) {
      return ForeignChange::kUnknown;
    }
    return note_frames(left.last_frame + 1, now, wal, frames) ? ForeignChange::kFrames
                                                              : ForeignChange::kUnknown;
  }
  if (now.change == left.change) {
    // A restart of the -wal (a checkpoint, or a refused commit of ours) changes salts and last
    // frame only.
    bool restarted =
        now.last_frame == 0 && now.same_checksum(left) && now.page_count == left.page_count;
    return restarted ? ForeignChange::kNone : ForeignChange::kUnknown;
  }
  // Restarted and committed to. All of it is here when this generation has as many commits as were
  // counted.
  if (now.last_frame == 0 || wal == nullptr) return ForeignChange::kUnknown;
  std::optional<std::uint32_t> commits = note_frames(1, now, wal, frames);
  return commits && *commits == now.change - left.change ? ForeignChange::kFrames
                                                         : ForeignChange::kUnknown;
}

}  // namespace offprint::sqlite
