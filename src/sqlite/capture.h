#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "sqlite/connection.h"

// The VFS shim: what SQLite writes to a -wal becomes one transaction, held back from every reader
// until it is decided. How and why, rule by rule: docs/capture.md.
namespace offprint::sqlite {

// Identifies a committed state within a -wal file: its salts and the number of the commit's last
// frame. frame 0 = nothing in this generation of the file yet.
struct WalPoint {
  std::uint32_t salt1 = 0;
  std::uint32_t salt2 = 0;
  std::uint32_t frame = 0;
  bool operator==(const WalPoint&) const = default;
  bool same_generation(const WalPoint& other) const {
    return salt1 == other.salt1 && salt2 == other.salt2;
  }
};

// One transaction as SQLite is about to publish it. Valid only during the call that passes it.
class CapturedTransaction {
 public:
  virtual ~CapturedTransaction() = default;
  virtual std::uint32_t page_size() const = 0;
  // Size of the database in pages after the commit.
  virtual std::uint32_t page_count() const = 0;
  virtual WalPoint wal_point() const = 0;
  // Changed pages, ascending, none above page_count(), never the lock page. An image may equal the
  // old one.
  virtual std::span<const std::uint32_t> pages() const = 0;
  // The new image of pages()[index]; valid until the next call. Small transactions are in memory,
  // large ones (over kCaptureMemoryMax bytes) are read back from the -wal.
  virtual Result<ByteView> image(std::size_t index) = 0;
};

// Page images of one transaction that the shim keeps in memory; beyond it only their places in the
// -wal.
inline constexpr std::size_t kCaptureMemoryMax = 1 << 20;

// Decides commits. Called on the thread that runs the connection, inside SQLite; must not use that
// connection (another connection to the same file may read: it sees the state before the commit).
class CommitGate {
 public:
  virtual ~CommitGate() = default;
  // Makes the transaction durable. An error refuses it: SQLite rolls back, COMMIT fails with
  // SQLITE_IOERR_FSYNC, and the connection stays usable. Once this answered without an error the
  // commit is decided.
  virtual Result<> commit(CapturedTransaction& transaction) = 0;
  // Another program committed to the file since our last transaction; called when this connection
  // has got the WRITE lock. `transaction` is what it committed (all of its commits as one), or null
  // when that cannot be told from the -wal any more. An error refuses our own write transaction
  // (BEGIN IMMEDIATE fails with SQLITE_IOERR_LOCK).
  virtual Result<> foreign_commit(CapturedTransaction* transaction) = 0;
  // A commit was decided, but could not be completed in the file, or went past the gate: the
  // connection must not be used any more and the database is to be recovered from the journal.
  virtual void broken(const Error& error) = 0;
};

// Registers the VFS `name` over the VFS `base` (nullptr: the default one). Every connection of ours
// to a hosted file uses it, readers too. Idempotent.
void register_capture_vfs(const char* name = "offprint", const char* base = nullptr);

// From now on the commits of this connection to its database `schema` (opened through the capture
// VFS, in WAL mode, synchronous=FULL, outside a transaction) are decided by `gate`, which must
// outlive the connection. nullptr: commits pass with a real fsync (recovery, imports). A connection
// without a gate is a plain one. What others write is noticed from this call on (see
// foreign_commit): before it is the caller's to compare. Runs PRAGMAs and BEGIN IMMEDIATE: call it
// before an authorizer is set. kInvalid when the connection is not as said; kBusy when another
// writer holds the file for longer than the busy timeout.
Result<> set_commit_gate(Connection& connection, CommitGate* gate, const char* schema = "main");

// The state that the read transaction now open on `connection` sees, after BEGIN (SQLite answers
// only then; a transaction that has read nothing yet starts with this call). {0,0,0} when the -wal
// has no header yet; frame 0 of a generation: everything committed before it. kInvalid without
// BEGIN and in a write transaction.
Result<WalPoint> snapshot_point(Connection& connection);

struct CheckpointResult {
  bool busy = false;              // a reader or writer was in the way
  std::uint32_t wal_frames = 0;   // frames in the -wal
  std::uint32_t done_frames = 0;  // of these, in the database file now, fsynced
};
// `mode` is SQLITE_CHECKPOINT_PASSIVE, FULL, RESTART or TRUNCATE. Busy is no error.
Result<CheckpointResult> checkpoint(Connection& connection, int mode, const char* schema = "main");

}  // namespace offprint::sqlite
