#include "sqlite/capture.h"

#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include "sqlite/capture_state.h"
#include "sqlite/capture_vfs.h"
#include "sqlite/capture_wal.h"

namespace offprint::sqlite {
namespace {

constexpr int kSynchronousFull = 2;

Result<> check_can_be_gated(Connection& connection, const char* schema) {
  OFFPRINT_TRY_ASSIGN(std::string mode,
                      connection.query_text(fmt::format("PRAGMA {}.journal_mode", schema).c_str()));
  if (mode != "wal") return fail(Code::kInvalid, "the database is not in WAL mode but in " + mode);
  OFFPRINT_TRY_ASSIGN(std::int64_t synchronous,
                      connection.query_int(fmt::format("PRAGMA {}.synchronous", schema).c_str()));
  if (synchronous < kSynchronousFull) return fail(Code::kInvalid, "synchronous is not FULL");
  return {};
}

// Null: there is none.
sqlite3_file* file_of(Connection& connection, const char* schema) {
  sqlite3_file* file = nullptr;
  int code = sqlite3_file_control(connection.handle(), schema, SQLITE_FCNTL_FILE_POINTER, &file);
  return code == SQLITE_OK ? file : nullptr;
}

Result<> sync_file(Connection& connection, const char* schema) {
  sqlite3_file* file = file_of(connection, schema);
  bool is_open = file != nullptr && file->pMethods != nullptr;
  int code = is_open ? file->pMethods->xSync(file, SQLITE_SYNC_NORMAL) : SQLITE_IOERR_FSYNC;
  if (code != SQLITE_OK) return fail(sqlite_error(code));
  return {};
}

}  // namespace

CaptureState* capture_state(Connection& connection, const char* schema) {
  sqlite3_file* file = file_of(connection, schema);
  return file == nullptr ? nullptr : capture_state_of(file);
}

Result<> set_commit_gate(Connection& connection, CommitGate* gate, const char* schema) {
  CaptureState* state = capture_state(connection, schema);
  if (state == nullptr)
    return fail(Code::kInvalid, "the connection was not opened through the capture VFS");
  if (!connection.autocommit()) return fail(Code::kInvalid, "a transaction is open");
  state->detach();
  if (gate == nullptr) return {};
  OFFPRINT_TRY(check_can_be_gated(connection, schema));
  // Under the WRITE lock nobody changes the wal-index while it is read.
  OFFPRINT_TRY(connection.execute("BEGIN IMMEDIATE"));
  bool attached = state->attach(gate);
  OFFPRINT_TRY(connection.execute("COMMIT"));
  if (!attached) return fail(Code::kInternal, "the wal-index cannot be read");
  return {};
}

Result<CheckpointResult> checkpoint(Connection& connection, int mode, const char* schema) {
  int wal_frames = 0;
  int done_frames = 0;
  int code =
      sqlite3_wal_checkpoint_v2(connection.handle(), schema, mode, &wal_frames, &done_frames);
  int primary_code = code & 0xff;
  bool busy = primary_code == SQLITE_BUSY || primary_code == SQLITE_LOCKED;
  if (code != SQLITE_OK && !busy) return fail(sqlite_error(code, connection.handle()));
  // SQLite leaves the file unsynced when frames stay behind, or came while it worked.
  if (done_frames > 0) OFFPRINT_TRY(sync_file(connection, schema));
  // Both are -1 when it did not even start.
  CheckpointResult result{.busy = busy || done_frames < wal_frames,
                          .wal_frames = static_cast<std::uint32_t>(std::max(wal_frames, 0)),
                          .done_frames = static_cast<std::uint32_t>(std::max(done_frames, 0))};
  return result;
}

}  // namespace offprint::sqlite
