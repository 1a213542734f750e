#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <sqlite3.h>

#include "base/result.h"
#include "sqlite/capture.h"
#include "sqlite/capture_frames.h"
#include "sqlite/capture_wal.h"

namespace offprint::sqlite {

// Which rules of docs/capture.md are in force. All of them, except in the tests that show that each
// is needed.
struct CaptureRules {
  bool overlay_held_header = true;
  bool clear_at_write_lock = true;
  bool cut_after_commit = true;
  bool last_frame_wins = true;
  bool drop_beyond_size = true;
  bool hold_commit_header = true;
  int refusal = SQLITE_IOERR_FSYNC;
};

// How often the unusual happened; for tests that must show that it did.
struct CaptureCounts {
  std::uint64_t commits = 0;
  std::uint64_t refusals = 0;
  std::uint64_t held_again = 0;    // a held header was replaced
  std::uint64_t overlays = 0;      // reads that met the held header
  std::uint64_t in_place = 0;      // images written over frames of this transaction
  std::uint64_t from_file = 0;     // transactions too large for memory
  std::uint64_t foreign = 0;       // foreign transactions read from the -wal
  std::uint64_t foreign_lost = 0;  // foreign transactions that could not be told
};

// What one connection's capture knows. Lives in the file object of its main database, shared with
// that of its -wal. Thread: the connection's. All calls come from SQLite, through the VFS. Without
// a gate everything passes through.
//
// Invariants:
//  1. held_frame_ != 0 only between the write of a commit frame's header and its decision, under
//  the WRITE lock.
//  2. The file has no frame header with a size after commit that the gate has not accepted.
//  3. left_ is the wal-index header after our last transaction, or after the last foreign one that
//  the gate accepted.
class CaptureState {
 public:
  explicit CaptureState(std::size_t memory_max = kCaptureMemoryMax) : frames_(memory_max) {}
  CaptureState(const CaptureState&) = delete;
  CaptureState& operator=(const CaptureState&) = delete;

  // The connection holds the WRITE lock and has written nothing yet. False when the wal-index
  // cannot be read.
  bool attach(CommitGate* gate);
  void detach() { gate_ = nullptr; }
  bool gated() const { return gate_ != nullptr; }
  bool broken() const { return broken_; }

  void wal_opened(sqlite3_file* wal) { wal_ = wal; }
  void wal_closed() { wal_ = nullptr; }
  void wal_index_mapped(const volatile void* first_region) { wal_index_ = first_region; }

  // Methods of the -wal file; result codes of SQLite.
  int read(void* to, int size, sqlite3_int64 offset);
  int write(const void* from, int size, sqlite3_int64 offset);
  int truncate(sqlite3_int64 size);
  int sync(int flags);
  int file_size(sqlite3_int64* size);

  // The WRITE lock has been taken. Not SQLITE_OK: it must be given back.
  int write_locked();
  // It is about to be given back.
  void write_unlocking();

  // The pages of which the open write transaction has written frames so far, ascending, each once;
  // some may be beyond the database's end by now. Of a connection with a gate.
  std::vector<std::uint32_t> written_pages() const;

  CaptureRules rules;
  const CaptureCounts& counts() const { return counts_; }
  // Images to keep in memory from the next transaction on; outside a transaction only.
  void set_memory_max(std::size_t bytes) { frames_ = FrameCollector(bytes); }

 private:
  int write_frame_part(const void* from, int size, sqlite3_int64 offset);
  int write_header(std::uint32_t frame, const std::uint8_t* header, sqlite3_int64 offset);
  int decide();
  int pass_write(const void* from, int size, sqlite3_int64 offset);
  bool check_foreign(const WalIndexHeader& now);
  void forget_transaction();
  void break_with(Error error);

  CommitGate* gate_ = nullptr;
  sqlite3_file* wal_ = nullptr;
  const volatile void* wal_index_ = nullptr;
  bool broken_ = false;

  // The write transaction.
  bool write_locked_ = false;
  std::optional<WalIndexHeader> at_lock_;
  std::uint32_t page_size_ = 0;
  FrameCollector frames_;
  CapturedFrames transaction_;
  std::uint8_t held_[kFrameHeaderSize] = {};
  std::uint32_t held_frame_ = 0;
  bool decided_ = false;

  std::optional<WalIndexHeader> left_;
  CaptureCounts counts_;
};

// The state of a connection's database; null when it was not opened through a capture VFS.
CaptureState* capture_state(Connection& connection, const char* schema = "main");

}  // namespace offprint::sqlite
