#include "sqlite/capture_state.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "sqlite/capture_foreign.h"

namespace offprint::sqlite {
namespace {

const std::uint8_t* bytes_of(const void* from) { return static_cast<const std::uint8_t*>(from); }

}  // namespace

bool CaptureState::attach(CommitGate* gate) {
  at_lock_ = left_ = WalIndexHeader::read(wal_index_);
  if (!left_ || !write_locked_) return false;
  page_size_ = left_->page_size;
  gate_ = gate;
  return true;
}

int CaptureState::read(void* to, int size, sqlite3_int64 offset) {
  if (broken_) return SQLITE_IOERR_READ;
  int code = wal_->pMethods->xRead(wal_, to, size, offset);
  if (held_frame_ == 0 || !rules.overlay_held_header) return code;
  auto held_begin = static_cast<sqlite3_int64>(frame_offset(held_frame_, page_size_));
  sqlite3_int64 begin = std::max(offset, held_begin);
  sqlite3_int64 end = std::min(offset + size, held_begin + sqlite3_int64{kFrameHeaderSize});
  if (begin >= end || (code != SQLITE_OK && code != SQLITE_IOERR_SHORT_READ)) return code;
  std::memcpy(static_cast<std::uint8_t*>(to) + (begin - offset), held_ + (begin - held_begin),
              static_cast<std::size_t>(end - begin));
  ++counts_.overlays;
  return code;
}

int CaptureState::pass_write(const void* from, int size, sqlite3_int64 offset) {
  return wal_->pMethods->xWrite(wal_, from, size, offset);
}

int CaptureState::write(const void* from, int size, sqlite3_int64 offset) {
  if (broken_) return SQLITE_IOERR_WRITE;
  if (!gated()) return pass_write(from, size, offset);
  // locking_mode=EXCLUSIVE takes no WRITE lock: the capture would not know where a transaction
  // begins.
  if (!write_locked_) return SQLITE_IOERR_WRITE;
  try {
    if (offset == 0 && size == int{kWalHeaderSize}) {
      frames_.clear();
      held_frame_ = 0;
      page_size_ = load_be<std::uint32_t>(bytes_of(from) + 8);
      return pass_write(from, size, offset);
    }
    return write_frame_part(from, size, offset);
  } catch (const std::bad_alloc&) {
    return SQLITE_IOERR_NOMEM;
  }
}

int CaptureState::write_frame_part(const void* from, int size, sqlite3_int64 offset) {
  if (page_size_ == 0 || offset < sqlite3_int64{kWalHeaderSize}) return SQLITE_IOERR_WRITE;
  std::uint64_t from_first = static_cast<std::uint64_t>(offset) - kWalHeaderSize;
  auto frame = static_cast<std::uint32_t>(from_first / (kFrameHeaderSize + page_size_) + 1);
  std::uint64_t within = from_first % (kFrameHeaderSize + page_size_);
  if (within == 0 && size == int{kFrameHeaderSize})
    return write_header(frame, bytes_of(from), offset);
  if (within != kFrameHeaderSize || std::cmp_not_equal(size, page_size_)) return SQLITE_IOERR_WRITE;
  int code = pass_write(from, size, offset);
  if (code != SQLITE_OK) return code;
  if (frames_.contains(frame) && frame < frames_.last_frame()) ++counts_.in_place;
  return frames_.note_image(frame, {bytes_of(from), page_size_}) ? SQLITE_OK : SQLITE_IOERR_WRITE;
}

int CaptureState::write_header(std::uint32_t frame, const std::uint8_t* header,
                               sqlite3_int64 offset) {
  FrameHeader decoded = FrameHeader::decode(header);
  if (!frames_.note_header(frame, decoded.page)) return SQLITE_IOERR_WRITE;
  if (decoded.size_after_commit == 0) {
    if (held_frame_ == frame) held_frame_ = 0;
    return pass_write(header, kFrameHeaderSize, offset);
  }
  if (held_frame_ != 0) ++counts_.held_again;
  std::memcpy(held_, header, kFrameHeaderSize);
  held_frame_ = frame;
  return rules.hold_commit_header ? SQLITE_OK : pass_write(header, kFrameHeaderSize, offset);
}

int CaptureState::truncate(sqlite3_int64 size) {
  if (broken_) return SQLITE_IOERR_TRUNCATE;
  return wal_->pMethods->xTruncate(wal_, size);
}

int CaptureState::sync(int flags) {
  if (broken_) return SQLITE_IOERR_FSYNC;
  // Not a commit: the header of a restarted -wal, or a checkpoint. It must reach the disk in
  // SQLite's order.
  if (!gated() || held_frame_ == 0) return wal_->pMethods->xSync(wal_, flags);
  return decide();
}

int CaptureState::decide() {
  FrameHeader commit = FrameHeader::decode(held_);
  std::uint32_t frame = std::exchange(held_frame_, 0);
  if (!frames_.contains(frame)) return SQLITE_IOERR_FSYNC;
  FrameSelection selection{.last_frame = frame,
                           .page_count = commit.size_after_commit,
                           .cut = rules.cut_after_commit,
                           .last_wins = rules.last_frame_wins,
                           .drop_beyond_size = rules.drop_beyond_size};
  try {
    transaction_.assign(frames_, wal_, page_size_, {commit.salt1, commit.salt2, frame}, selection);
  } catch (const std::bad_alloc&) {
    return SQLITE_IOERR_NOMEM;
  }
  if (frames_.image_of(frame, page_size_).empty()) ++counts_.from_file;
  if (Result<> accepted = gate_->commit(transaction_); !accepted) {
    ++counts_.refusals;
    return rules.refusal;
  }
  decided_ = true;
  ++counts_.commits;
  int code = pass_write(held_, kFrameHeaderSize,
                        static_cast<sqlite3_int64>(frame_offset(frame, page_size_)));
  if (code == SQLITE_OK) return SQLITE_OK;
  break_with(sqlite_error(code).with_context("write the header of a decided commit to the -wal"));
  return SQLITE_IOERR_FSYNC;
}

int CaptureState::file_size(sqlite3_int64* size) {
  if (broken_) return SQLITE_IOERR_FSTAT;
  return wal_->pMethods->xFileSize(wal_, size);
}

int CaptureState::write_locked() {
  write_locked_ = true;
  if (!gated()) return SQLITE_OK;
  if (rules.clear_at_write_lock) forget_transaction();
  at_lock_ = WalIndexHeader::read(wal_index_);
  if (!at_lock_)
    return SQLITE_OK;  // SQLite took the lock to recover the wal-index: nothing is committed under
                       // it
  page_size_ = at_lock_->page_size;
  try {
    if (check_foreign(*at_lock_)) return SQLITE_OK;
  } catch (const std::bad_alloc&) {
    write_locked_ = false;
    return SQLITE_IOERR_NOMEM;
  }
  write_locked_ = false;
  return SQLITE_IOERR_LOCK;
}

bool CaptureState::check_foreign(const WalIndexHeader& now) {
  FrameCollector foreign(0);
  switch (find_foreign_change(*left_, now, wal_, foreign)) {
    case ForeignChange::kNone:
      break;
    case ForeignChange::kFrames: {
      ++counts_.foreign;
      CapturedFrames transaction;
      FrameSelection selection{.last_frame = now.last_frame, .page_count = now.page_count};
      transaction.assign(foreign, wal_, now.page_size, {now.salt1, now.salt2, now.last_frame},
                         selection);
      if (!gate_->foreign_commit(&transaction)) return false;
      break;
    }
    case ForeignChange::kUnknown:
      ++counts_.foreign_lost;
      if (!gate_->foreign_commit(nullptr)) return false;
      break;
  }
  left_ = now;
  return true;
}

void CaptureState::write_unlocking() {
  if (!std::exchange(write_locked_, false) || !gated()) return;
  std::optional<WalIndexHeader> now = WalIndexHeader::read(wal_index_);
  bool published = at_lock_ && now && now->change != at_lock_->change;
  if (!broken_ && published && !decided_) {
    break_with(Error(Code::kInternal, "a commit went past the gate: synchronous was not FULL"));
  } else if (!broken_ && decided_ && !published) {
    break_with(Error(Code::kIo, "SQLite rolled back a commit that was decided"));
  }
  // Otherwise a header still held is that of a commit that failed before its xSync, and is dropped
  // with it.
  if (at_lock_ && now) left_ = now;
  if (rules.clear_at_write_lock) {
    forget_transaction();
  } else if (decided_) {
    frames_.clear();
  }
  held_frame_ = 0;
  decided_ = false;
}

std::vector<std::uint32_t> CaptureState::written_pages() const {
  std::vector<std::uint32_t> pages(frames_.pages().begin(), frames_.pages().end());
  std::ranges::sort(pages);
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  return pages;
}

void CaptureState::forget_transaction() {
  frames_.clear();
  transaction_.clear();
  held_frame_ = 0;
  decided_ = false;
}

void CaptureState::break_with(Error error) {
  broken_ = true;
  gate_->broken(error);
}

}  // namespace offprint::sqlite
