#pragma once

#include <sqlite3.h>

#include <cstddef>
#include <functional>

// For tests only: a VFS below the capture that counts, fails and lies as the test says. One thread.
namespace offprint::sqlite::testing {

struct Faults {
  // Asked before each write to a -wal; another code than SQLITE_OK fails it.
  std::function<int(int size, sqlite3_int64 offset)> on_wal_write;
  // Mapping this wal-index region or a later one fails.
  int fail_region_from = 1 << 30;
  // Whether devices claim that a write leaves its neighbours alone.
  bool powersafe_overwrite = true;
  int wal_writes = 0;
  int wal_syncs = 0;
};

inline Faults& faults() {
  static Faults the_faults;
  return the_faults;
}

namespace fault_vfs {

struct FaultFile {
  sqlite3_file base;
  sqlite3_file* real;
  bool is_wal;
};
constexpr int kRealOffset = (static_cast<int>(sizeof(FaultFile)) + 15) & ~15;

inline FaultFile& self(sqlite3_file* file) { return *reinterpret_cast<FaultFile*>(file); }
inline sqlite3_file* real(sqlite3_file* file) { return self(file).real; }
inline const sqlite3_io_methods& real_methods(sqlite3_file* file) { return *real(file)->pMethods; }

inline int write(sqlite3_file* file, const void* from, int size, sqlite3_int64 offset) {
  if (self(file).is_wal) {
    ++faults().wal_writes;
    int code = faults().on_wal_write ? faults().on_wal_write(size, offset) : SQLITE_OK;
    if (code != SQLITE_OK) return code;
  }
  return real_methods(file).xWrite(real(file), from, size, offset);
}
inline int sync(sqlite3_file* file, int flags) {
  if (self(file).is_wal) ++faults().wal_syncs;
  return real_methods(file).xSync(real(file), flags);
}
inline int characteristics(sqlite3_file* file) {
  int flags = real_methods(file).xDeviceCharacteristics(real(file));
  return faults().powersafe_overwrite ? flags : flags & ~SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}
inline int map(sqlite3_file* file, int region, int size, int extend, void volatile** to) {
  if (region >= faults().fail_region_from) return SQLITE_IOERR_SHMMAP;
  return real_methods(file).xShmMap(real(file), region, size, extend, to);
}

inline const sqlite3_io_methods kMethods = {
    2,
    [](sqlite3_file* f) { return real_methods(f).xClose(real(f)); },
    [](sqlite3_file* f, void* to, int n, sqlite3_int64 at) {
      return real_methods(f).xRead(real(f), to, n, at);
    },
    write,
    [](sqlite3_file* f, sqlite3_int64 size) { return real_methods(f).xTruncate(real(f), size); },
    sync,
    [](sqlite3_file* f, sqlite3_int64* size) { return real_methods(f).xFileSize(real(f), size); },
    [](sqlite3_file* f, int level) { return real_methods(f).xLock(real(f), level); },
    [](sqlite3_file* f, int level) { return real_methods(f).xUnlock(real(f), level); },
    [](sqlite3_file* f, int* out) { return real_methods(f).xCheckReservedLock(real(f), out); },
    [](sqlite3_file* f, int op, void* argument) {
      return real_methods(f).xFileControl(real(f), op, argument);
    },
    [](sqlite3_file* f) { return real_methods(f).xSectorSize(real(f)); },
    characteristics,
    map,
    [](sqlite3_file* f, int at, int n, int flags) {
      return real_methods(f).xShmLock(real(f), at, n, flags);
    },
    [](sqlite3_file* f) { real_methods(f).xShmBarrier(real(f)); },
    [](sqlite3_file* f, int remove) { return real_methods(f).xShmUnmap(real(f), remove); },
    nullptr,
    nullptr};

inline int open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out) {
  auto* base = static_cast<sqlite3_vfs*>(vfs->pAppData);
  self(file) = {};
  self(file).real =
      reinterpret_cast<sqlite3_file*>(reinterpret_cast<std::byte*>(file) + kRealOffset);
  self(file).is_wal = (flags & SQLITE_OPEN_WAL) != 0;
  int code = base->xOpen(base, name, real(file), flags, out);
  if (code == SQLITE_OK) self(file).base.pMethods = &kMethods;
  return code;
}

}  // namespace fault_vfs

// Registers VFS "faulty" over the default one and forgets earlier faults.
inline void reset_faults() {
  faults() = {};
  static sqlite3_vfs vfs = [] {
    sqlite3_vfs* base = sqlite3_vfs_find(nullptr);
    // Only the methods that take no file and no pAppData of the base's may be inherited; the unix
    // VFS uses pAppData in xOpen alone.
    sqlite3_vfs made = *base;
    made.pNext = nullptr;
    made.zName = "faulty";
    made.pAppData = base;
    made.szOsFile = fault_vfs::kRealOffset + base->szOsFile;
    made.xOpen = fault_vfs::open;
    return made;
  }();
  sqlite3_vfs_register(&vfs, 0);
}

}  // namespace offprint::sqlite::testing
