#include "sqlite/read_snapshot.h"

#include <atomic>
#include <memory>

namespace offprint::sqlite {
namespace {

constexpr char kMain[] = "main";
constexpr int kWalIndexRegion = 32 << 10;  // SQLite maps the wal-index in regions of this size

}  // namespace

const volatile void* map_wal_index(Connection& connection) {
  sqlite3_file* file = nullptr;
  sqlite3_file_control(connection.handle(), kMain, SQLITE_FCNTL_FILE_POINTER, &file);
  if (file == nullptr || file->pMethods == nullptr || file->pMethods->iVersion < 2) return nullptr;
  volatile void* mapped = nullptr;
  int code = file->pMethods->xShmMap(file, 0, kWalIndexRegion, 0, &mapped);
  return code == SQLITE_OK ? mapped : nullptr;
}

Result<ReadSnapshot> ReadSnapshot::of(Connection& connection) {
  sqlite3* db = connection.handle();
  if (connection.autocommit() || sqlite3_txn_state(db, kMain) == SQLITE_TXN_WRITE) {
    return fail(Code::kInvalid, "no read transaction is open");
  }
  struct Free {
    void operator()(sqlite3_snapshot* made) const { sqlite3_snapshot_free(made); }
  };
  sqlite3_snapshot* made = nullptr;
  int code = sqlite3_snapshot_get(db, kMain, &made);
  std::unique_ptr<sqlite3_snapshot, Free> owned(made);
  ReadSnapshot snapshot;
  if (code == SQLITE_ERROR) return snapshot;  // no transaction was ever written to this -wal
  if (code != SQLITE_OK) return fail(sqlite_error(code, db));
  snapshot.header_ = WalIndexHeader::decode(made->hidden);
  snapshot.point_ = {snapshot.header_.salt1, snapshot.header_.salt2, snapshot.header_.last_frame};
  snapshot.wal_index_ = map_wal_index(connection);
  return snapshot;
}

bool ReadSnapshot::is_newest() const {
  std::atomic_thread_fence(std::memory_order_acquire);
  return WalIndexHeader::read(wal_index_) == header_;
}

Result<WalPoint> snapshot_point(Connection& connection) {
  OFFPRINT_TRY_ASSIGN(ReadSnapshot snapshot, ReadSnapshot::of(connection));
  return snapshot.point();
}

}  // namespace offprint::sqlite
