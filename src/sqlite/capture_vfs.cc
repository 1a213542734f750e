#include "sqlite/capture_vfs.h"

#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <string>

#include "base/assert.h"

// SQLite's C interface for the capture: file objects that forward to those of the VFS below, with
// the main database and its -wal reporting to one CaptureState.
namespace offprint::sqlite {
namespace {

constexpr int kWriteLock = 0;  // SQLite's WAL_WRITE_LOCK

// What SQLite sees as an open file. Plain memory of SQLite's; the real file object follows it.
struct CaptureFile {
  sqlite3_file base;
  sqlite3_file* real;
  CaptureState* state;  // main database: owned; its -wal: borrowed from it, as SQLite closes it
                        // first; others: null
  bool is_wal;
};
constexpr int kRealOffset = static_cast<int>((sizeof(CaptureFile) + alignof(std::max_align_t) - 1) &
                                             ~(alignof(std::max_align_t) - 1));

CaptureFile& capture(sqlite3_file* file) { return *reinterpret_cast<CaptureFile*>(file); }
sqlite3_file* real(sqlite3_file* file) { return capture(file).real; }
CaptureState* wal_state(sqlite3_file* file) {
  return capture(file).is_wal ? capture(file).state : nullptr;
}

int close_file(sqlite3_file* file) noexcept {
  int code = real(file)->pMethods->xClose(real(file));
  if (capture(file).is_wal) {
    capture(file).state->wal_closed();
  } else {
    delete capture(file).state;
  }
  capture(file).state = nullptr;
  return code;
}

int read_file(sqlite3_file* file, void* to, int size, sqlite3_int64 offset) noexcept {
  if (CaptureState* state = wal_state(file)) return state->read(to, size, offset);
  return real(file)->pMethods->xRead(real(file), to, size, offset);
}

int write_file(sqlite3_file* file, const void* from, int size, sqlite3_int64 offset) noexcept {
  if (CaptureState* state = wal_state(file)) return state->write(from, size, offset);
  return real(file)->pMethods->xWrite(real(file), from, size, offset);
}

int truncate_file(sqlite3_file* file, sqlite3_int64 size) noexcept {
  if (CaptureState* state = wal_state(file)) return state->truncate(size);
  return real(file)->pMethods->xTruncate(real(file), size);
}

int sync_file(sqlite3_file* file, int flags) noexcept {
  if (CaptureState* state = wal_state(file)) return state->sync(flags);
  return real(file)->pMethods->xSync(real(file), flags);
}

int size_file(sqlite3_file* file, sqlite3_int64* size) noexcept {
  if (CaptureState* state = wal_state(file)) return state->file_size(size);
  return real(file)->pMethods->xFileSize(real(file), size);
}

int lock_file(sqlite3_file* file, int level) {
  return real(file)->pMethods->xLock(real(file), level);
}
int unlock_file(sqlite3_file* file, int level) {
  return real(file)->pMethods->xUnlock(real(file), level);
}
int check_reserved(sqlite3_file* file, int* out) {
  return real(file)->pMethods->xCheckReservedLock(real(file), out);
}
int file_control(sqlite3_file* file, int operation, void* argument) {
  return real(file)->pMethods->xFileControl(real(file), operation, argument);
}
int sector_size(sqlite3_file* file) { return real(file)->pMethods->xSectorSize(real(file)); }

// Without this flag SQLite pads commits with copies of the last frame, each with a commit mark.
int device_characteristics(sqlite3_file* file) {
  return real(file)->pMethods->xDeviceCharacteristics(real(file)) |
         SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

int shm_map(sqlite3_file* file, int region, int size, int extend, void volatile** to) noexcept {
  int code = real(file)->pMethods->xShmMap(real(file), region, size, extend, to);
  CaptureState* state = capture(file).state;
  if (code == SQLITE_OK && region == 0 && state != nullptr) state->wal_index_mapped(*to);
  return code;
}

int shm_lock(sqlite3_file* file, int offset, int count, int flags) noexcept {
  CaptureState* state = capture(file).state;
  const sqlite3_io_methods& methods = *real(file)->pMethods;
  if (state == nullptr) return methods.xShmLock(real(file), offset, count, flags);
  bool taking = (flags & SQLITE_SHM_LOCK) != 0;
  bool write_lock = offset == kWriteLock && (flags & SQLITE_SHM_EXCLUSIVE) != 0;
  if (taking && state->broken()) return SQLITE_IOERR_SHMLOCK;
  if (!taking && write_lock) state->write_unlocking();
  int code = methods.xShmLock(real(file), offset, count, flags);
  if (!taking || !write_lock || code != SQLITE_OK) return code;
  code = state->write_locked();
  if (code != SQLITE_OK) {
    methods.xShmLock(real(file), offset, count, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
  }
  return code;
}

void shm_barrier(sqlite3_file* file) { real(file)->pMethods->xShmBarrier(real(file)); }

int shm_unmap(sqlite3_file* file, int remove) {
  if (CaptureState* state = capture(file).state) state->wal_index_mapped(nullptr);
  return real(file)->pMethods->xShmUnmap(real(file), remove);
}

// Version 2: no memory-mapped reads of the database file (an I/O error there would be a SIGBUS).
constexpr sqlite3_io_methods file_methods(int version) {
  return {version,
          close_file,
          read_file,
          write_file,
          truncate_file,
          sync_file,
          size_file,
          lock_file,
          unlock_file,
          check_reserved,
          file_control,
          sector_size,
          device_characteristics,
          shm_map,
          shm_lock,
          shm_barrier,
          shm_unmap,
          nullptr,
          nullptr};
}
constexpr sqlite3_io_methods kMethods = file_methods(2);
constexpr sqlite3_io_methods kMethodsWithoutShm = file_methods(1);

sqlite3_vfs* base_of(sqlite3_vfs* vfs) { return static_cast<sqlite3_vfs*>(vfs->pAppData); }

CaptureState* state_of_database_of(const char* wal_or_journal_name) {
  return capture_state_of(sqlite3_database_file_object(wal_or_journal_name));
}

int open_file(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags,
              int* out_flags) noexcept {
  CaptureFile& opened = capture(file);
  opened = {};
  // A database with a gate stays in WAL mode: a rollback journal would bypass the gate.
  if ((flags & SQLITE_OPEN_MAIN_JOURNAL) != 0 && (flags & SQLITE_OPEN_READONLY) == 0) {
    CaptureState* state = state_of_database_of(name);
    if (state != nullptr && state->gated()) return SQLITE_CANTOPEN;
  }
  std::unique_ptr<CaptureState> owned;
  if ((flags & SQLITE_OPEN_MAIN_DB) != 0) {
    owned.reset(new (std::nothrow) CaptureState());
    if (owned == nullptr) return SQLITE_NOMEM;
  }
  opened.real = reinterpret_cast<sqlite3_file*>(reinterpret_cast<std::byte*>(file) + kRealOffset);
  opened.real->pMethods = nullptr;
  int code = base_of(vfs)->xOpen(base_of(vfs), name, opened.real, flags, out_flags);
  if (code != SQLITE_OK) {
    // SQLite closes a file only if its methods are set; here it has none of ours yet.
    if (opened.real->pMethods != nullptr) opened.real->pMethods->xClose(opened.real);
    return code;
  }
  opened.base.pMethods = opened.real->pMethods->iVersion >= 2 ? &kMethods : &kMethodsWithoutShm;
  if (owned != nullptr) opened.state = owned.release();
  if ((flags & SQLITE_OPEN_WAL) != 0) {
    opened.state = state_of_database_of(name);
    opened.is_wal = opened.state != nullptr;
    if (opened.is_wal) opened.state->wal_opened(opened.real);
  }
  return SQLITE_OK;
}

// The rest of the VFS is that of the base.
int delete_name(sqlite3_vfs* vfs, const char* name, int sync_directory) {
  return base_of(vfs)->xDelete(base_of(vfs), name, sync_directory);
}
int access_name(sqlite3_vfs* vfs, const char* name, int flags, int* out) {
  return base_of(vfs)->xAccess(base_of(vfs), name, flags, out);
}
int full_pathname(sqlite3_vfs* vfs, const char* name, int size, char* out) {
  return base_of(vfs)->xFullPathname(base_of(vfs), name, size, out);
}
void* dl_open(sqlite3_vfs* vfs, const char* name) {
  return base_of(vfs)->xDlOpen(base_of(vfs), name);
}
void dl_error(sqlite3_vfs* vfs, int size, char* out) {
  base_of(vfs)->xDlError(base_of(vfs), size, out);
}
void (*dl_symbol(sqlite3_vfs* vfs, void* library, const char* name))(void) {
  return base_of(vfs)->xDlSym(base_of(vfs), library, name);
}
void dl_close(sqlite3_vfs* vfs, void* library) { base_of(vfs)->xDlClose(base_of(vfs), library); }
int randomness(sqlite3_vfs* vfs, int size, char* out) {
  return base_of(vfs)->xRandomness(base_of(vfs), size, out);
}
int sleep_us(sqlite3_vfs* vfs, int microseconds) {
  return base_of(vfs)->xSleep(base_of(vfs), microseconds);
}
int current_time(sqlite3_vfs* vfs, double* out) {
  return base_of(vfs)->xCurrentTime(base_of(vfs), out);
}
int last_error(sqlite3_vfs* vfs, int size, char* out) {
  return base_of(vfs)->xGetLastError(base_of(vfs), size, out);
}
int current_time_ms(sqlite3_vfs* vfs, sqlite3_int64* out) {
  return base_of(vfs)->xCurrentTimeInt64(base_of(vfs), out);
}

struct Registration {
  std::string name;
  sqlite3_vfs vfs;
};

}  // namespace

CaptureState* capture_state_of(sqlite3_file* main_database) {
  if (main_database == nullptr) return nullptr;
  const sqlite3_io_methods* methods = main_database->pMethods;
  bool ours = methods == &kMethods || methods == &kMethodsWithoutShm;
  return ours ? capture(main_database).state : nullptr;
}

void register_capture_vfs(const char* name, const char* base) {
  initialize();
  static std::mutex mutex;
  static std::deque<Registration> registrations;  // SQLite keeps pointers into it for ever
  std::lock_guard lock(mutex);
  if (sqlite3_vfs_find(name) != nullptr) return;
  sqlite3_vfs* below = sqlite3_vfs_find(base);
  OFFPRINT_ASSERT(below != nullptr && below->iVersion >= 2);
  Registration& made = registrations.emplace_back(Registration{name, {}});
  made.vfs.iVersion = 2;
  made.vfs.szOsFile = kRealOffset + below->szOsFile;
  made.vfs.mxPathname = below->mxPathname;
  made.vfs.zName = made.name.c_str();
  made.vfs.pAppData = below;
  made.vfs.xOpen = open_file;
  made.vfs.xDelete = delete_name;
  made.vfs.xAccess = access_name;
  made.vfs.xFullPathname = full_pathname;
  made.vfs.xDlOpen = dl_open;
  made.vfs.xDlError = dl_error;
  made.vfs.xDlSym = dl_symbol;
  made.vfs.xDlClose = dl_close;
  made.vfs.xRandomness = randomness;
  made.vfs.xSleep = sleep_us;
  made.vfs.xCurrentTime = current_time;
  made.vfs.xGetLastError = last_error;
  made.vfs.xCurrentTimeInt64 = current_time_ms;
  sqlite3_vfs_register(&made.vfs, 0);
}

}  // namespace offprint::sqlite
