#pragma once

#include <sqlite3.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/assert.h"
#include "base/file_system.h"
#include "sqlite/connection.h"

// For tests only: an SQLite VFS whose files are those of a FileSystem (in practice a
// FaultFileSystem), so that databases, their -wal and the journal share one disk that can fail and
// lose its power. The -shm and all locks are in this process's memory. Thread: any.
namespace offprint::database::testing {

class FaultVfs {
 public:
  static constexpr char kName[] = "faults";

  // Registers the VFS with SQLite at first use.
  static FaultVfs& instance() {
    static FaultVfs* the_vfs = new FaultVfs();  // SQLite keeps pointers into it for ever
    return *the_vfs;
  }

  // The disk that files opened from now on are on. No connection may be open: memory does not
  // survive a machine.
  void use(FileSystem* files) {
    std::lock_guard lock(mutex_);
    for (const auto& [path, inode] : inodes_)
      std::fprintf(stderr, "%s is open %d times\n", path.c_str(), inode.users);
    OFFPRINT_ASSERT(inodes_.empty());
    files_ = files;
  }

 private:
  // What the open handles of one file share.
  struct Inode {
    int users = 0;
    // File locks, by SQLite's levels.
    int shared = 0;
    const void* reserved = nullptr;
    const void* pending = nullptr;
    const void* exclusive = nullptr;
    // The wal-index: regions that stay where they are, and -1 (exclusive) or a count of sharers for
    // each of its locks.
    int shm_users = 0;
    std::vector<std::unique_ptr<std::uint8_t[]>> regions;
    std::array<int, SQLITE_SHM_NLOCK> shm_locks{};
  };

  struct Handle {
    std::unique_ptr<File> file;
    std::string path;  // empty: a temporary file
    bool sync_directory = false;
    int level = SQLITE_LOCK_NONE;
    bool maps_shm = false;
    std::array<bool, SQLITE_SHM_NLOCK> shm_shared{};
    std::array<bool, SQLITE_SHM_NLOCK> shm_exclusive{};
  };

  struct OpenFile {
    sqlite3_file base;
    Handle* handle;
  };

  // A temporary file of SQLite's: in memory, never fails.
  class ScratchFile final : public File {
   public:
    Result<std::size_t> read_at(std::uint64_t offset, std::span<std::uint8_t> to) override {
      if (offset >= content_.size()) return std::size_t{0};
      std::size_t size = std::min<std::size_t>(to.size(), content_.size() - offset);
      std::copy_n(content_.begin() + static_cast<std::ptrdiff_t>(offset), size, to.begin());
      return size;
    }
    Result<> write_at(std::uint64_t offset, ByteView bytes) override {
      if (content_.size() < offset + bytes.size()) content_.resize(offset + bytes.size());
      std::copy(bytes.begin(), bytes.end(), content_.begin() + static_cast<std::ptrdiff_t>(offset));
      return {};
    }
    Result<> sync() override { return {}; }
    Result<std::uint64_t> size() override { return std::uint64_t{content_.size()}; }
    Result<> truncate(std::uint64_t size) override {
      content_.resize(size);
      return {};
    }
    Result<> allocate(std::uint64_t) override { return {}; }

   private:
    Bytes content_;
  };

  FaultVfs() {
    sqlite::initialize();
    sqlite3_vfs* system = sqlite3_vfs_find(nullptr);
    vfs_ = *system;  // for randomness and time, which take nothing from the object they belong to
    vfs_.pNext = nullptr;
    vfs_.iVersion = 2;
    vfs_.szOsFile = sizeof(OpenFile);
    vfs_.mxPathname = 512;
    vfs_.zName = kName;
    vfs_.pAppData = this;
    vfs_.xOpen = open;
    vfs_.xDelete = remove;
    vfs_.xAccess = access;
    vfs_.xFullPathname = full_pathname;
    vfs_.xSleep = sleep;
    sqlite3_vfs_register(&vfs_, 0);
  }

  static FaultVfs& self(sqlite3_vfs* vfs) { return *static_cast<FaultVfs*>(vfs->pAppData); }
  static Handle& handle(sqlite3_file* file) { return *reinterpret_cast<OpenFile*>(file)->handle; }
  FileSystem& disk() { return *files_.load(); }
  Inode& inode(const Handle& handle) { return inodes_.at(handle.path); }  // mutex_ held
  static int code_of(const Error& error, int otherwise) {
    return error.code() == Code::kFull ? SQLITE_FULL : otherwise;
  }
  static std::string folder_of(const std::string& path) {
    std::size_t slash = path.rfind('/');
    return slash == std::string::npos ? std::string() : path.substr(0, slash);
  }

  // --- names

  static int open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags,
                  int* out_flags) {
    FaultVfs& faults = self(vfs);
    auto made = std::make_unique<Handle>();
    if (name == nullptr) {
      made->file = std::make_unique<ScratchFile>();
    } else {
      using Mode = FileSystem::Mode;
      bool creates = (flags & SQLITE_OPEN_CREATE) != 0;
      Mode mode = (flags & SQLITE_OPEN_READONLY) != 0               ? Mode::kRead
                  : creates && (flags & SQLITE_OPEN_EXCLUSIVE) != 0 ? Mode::kCreateNew
                  : creates                                         ? Mode::kCreate
                                                                    : Mode::kReadWrite;
      auto opened = faults.disk().open(name, mode);
      if (!opened) return code_of(opened.error(), SQLITE_CANTOPEN);
      made->file = *std::move(opened);
      made->path = name;
      // As the unix VFS: the name of a new journal is made durable with its first sync.
      int journals = SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL | SQLITE_OPEN_WAL;
      made->sync_directory = creates && (flags & journals) != 0;
      std::lock_guard lock(faults.mutex_);
      ++faults.inodes_[made->path].users;
    }
    auto& opened = *reinterpret_cast<OpenFile*>(file);
    opened.handle = made.release();
    opened.base.pMethods = &kMethods;
    if (out_flags != nullptr) *out_flags = flags;
    return SQLITE_OK;
  }

  static int close(sqlite3_file* file) {
    auto& opened = *reinterpret_cast<OpenFile*>(file);
    std::unique_ptr<Handle> closed(opened.handle);
    opened.base.pMethods = nullptr;
    opened.handle = nullptr;
    if (closed->path.empty()) return SQLITE_OK;
    FaultVfs& faults = instance();
    std::lock_guard lock(faults.mutex_);
    OFFPRINT_ASSERT(!closed->maps_shm);
    faults.unlock_to(*closed, SQLITE_LOCK_NONE);
    if (--faults.inode(*closed).users == 0) faults.inodes_.erase(closed->path);
    return SQLITE_OK;
  }

  static int remove(sqlite3_vfs* vfs, const char* name, int sync_directory) {
    FileSystem& files = self(vfs).disk();
    auto there = files.exists(name);
    if (!there) return SQLITE_IOERR_DELETE;
    if (!*there) return SQLITE_IOERR_DELETE_NOENT;
    if (!files.remove(name)) return SQLITE_IOERR_DELETE;
    if (sync_directory != 0 && !files.sync_directory(folder_of(name)))
      return SQLITE_IOERR_DIR_FSYNC;
    return SQLITE_OK;
  }

  // As the unix VFS: an empty file does not exist.
  static int access(sqlite3_vfs* vfs, const char* name, int, int* out) {
    FileSystem& files = self(vfs).disk();
    *out = 0;
    auto there = files.exists(name);
    if (!there) return SQLITE_IOERR_ACCESS;
    if (!*there) return SQLITE_OK;
    auto file = files.open(name, FileSystem::Mode::kRead);
    if (!file) return SQLITE_IOERR_ACCESS;
    auto size = (*file)->size();
    if (!size) return SQLITE_IOERR_ACCESS;
    *out = *size > 0 ? 1 : 0;
    return SQLITE_OK;
  }

  static int full_pathname(sqlite3_vfs*, const char* name, int size, char* out) {
    sqlite3_snprintf(size, out, "%s", name);
    return SQLITE_OK;
  }

  static int sleep(sqlite3_vfs*, int microseconds) {
    std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
    return microseconds;
  }

  // --- content

  static int read(sqlite3_file* file, void* to, int size, sqlite3_int64 offset) {
    std::span<std::uint8_t> bytes(static_cast<std::uint8_t*>(to), static_cast<std::size_t>(size));
    auto got = handle(file).file->read_at(static_cast<std::uint64_t>(offset), bytes);
    if (!got) return SQLITE_IOERR_READ;
    if (*got == bytes.size()) return SQLITE_OK;
    std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(*got), bytes.end(), std::uint8_t{0});
    return SQLITE_IOERR_SHORT_READ;
  }

  static int write(sqlite3_file* file, const void* from, int size, sqlite3_int64 offset) {
    ByteView bytes(static_cast<const std::uint8_t*>(from), static_cast<std::size_t>(size));
    auto written = handle(file).file->write_at(static_cast<std::uint64_t>(offset), bytes);
    return written ? SQLITE_OK : code_of(written.error(), SQLITE_IOERR_WRITE);
  }

  static int truncate(sqlite3_file* file, sqlite3_int64 size) {
    auto done = handle(file).file->truncate(static_cast<std::uint64_t>(size));
    return done ? SQLITE_OK : SQLITE_IOERR_TRUNCATE;
  }

  static int sync(sqlite3_file* file, int) {
    Handle& open_file = handle(file);
    if (!open_file.file->sync()) return SQLITE_IOERR_FSYNC;
    if (!open_file.sync_directory) return SQLITE_OK;
    if (!instance().disk().sync_directory(folder_of(open_file.path))) return SQLITE_IOERR_DIR_FSYNC;
    open_file.sync_directory = false;
    return SQLITE_OK;
  }

  static int file_size(sqlite3_file* file, sqlite3_int64* size) {
    auto got = handle(file).file->size();
    if (!got) return SQLITE_IOERR_FSTAT;
    *size = static_cast<sqlite3_int64>(*got);
    return SQLITE_OK;
  }

  // --- locks of the database file

  static int lock(sqlite3_file* file, int level) {
    FaultVfs& faults = instance();
    std::lock_guard guard(faults.mutex_);
    Handle& self = handle(file);
    if (self.level >= level) return SQLITE_OK;
    Inode& node = faults.inode(self);
    auto held_by_other = [&](const void* holder) { return holder != nullptr && holder != &self; };
    if (held_by_other(node.exclusive)) return SQLITE_BUSY;
    if (level == SQLITE_LOCK_SHARED) {
      if (held_by_other(node.pending)) return SQLITE_BUSY;
      ++node.shared;
    } else {
      if (held_by_other(node.reserved) || held_by_other(node.pending)) return SQLITE_BUSY;
      if (level == SQLITE_LOCK_RESERVED) {
        node.reserved = &self;
      } else {
        node.pending = &self;
        if (node.shared > 1) {
          self.level = SQLITE_LOCK_PENDING;
          return SQLITE_BUSY;
        }
        node.exclusive = &self;
      }
    }
    self.level = level;
    return SQLITE_OK;
  }

  void unlock_to(Handle& self, int level) {  // mutex_ held
    if (self.path.empty() || self.level <= level) return;
    Inode& node = inode(self);
    for (const void** held : {&node.reserved, &node.pending, &node.exclusive}) {
      if (*held == &self) *held = nullptr;
    }
    if (level == SQLITE_LOCK_NONE) --node.shared;
    self.level = level;
  }

  static int unlock(sqlite3_file* file, int level) {
    FaultVfs& faults = instance();
    std::lock_guard guard(faults.mutex_);
    faults.unlock_to(handle(file), level);
    return SQLITE_OK;
  }

  static int check_reserved(sqlite3_file* file, int* out) {
    FaultVfs& faults = instance();
    std::lock_guard guard(faults.mutex_);
    *out = faults.inode(handle(file)).reserved != nullptr ? 1 : 0;
    return SQLITE_OK;
  }

  // --- the wal-index

  static int shm_map(sqlite3_file* file, int region, int size, int extend, void volatile** to) {
    FaultVfs& faults = instance();
    std::lock_guard guard(faults.mutex_);
    Handle& self = handle(file);
    Inode& node = faults.inode(self);
    if (!self.maps_shm) ++node.shm_users;
    self.maps_shm = true;
    auto index = static_cast<std::size_t>(region);
    *to = nullptr;
    if (index >= node.regions.size() && extend == 0) return SQLITE_OK;
    while (index >= node.regions.size()) {
      node.regions.push_back(std::make_unique<std::uint8_t[]>(static_cast<std::size_t>(size)));
    }
    *to = node.regions[index].get();
    return SQLITE_OK;
  }

  static int shm_lock(sqlite3_file* file, int offset, int count, int flags) {
    FaultVfs& faults = instance();
    std::lock_guard guard(faults.mutex_);
    Handle& self = handle(file);
    Inode& node = faults.inode(self);
    auto begin = static_cast<std::size_t>(offset);
    std::size_t end = begin + static_cast<std::size_t>(count);
    bool exclusive = (flags & SQLITE_SHM_EXCLUSIVE) != 0;
    auto& mine = exclusive ? self.shm_exclusive : self.shm_shared;
    if ((flags & SQLITE_SHM_UNLOCK) != 0) {
      for (std::size_t i = begin; i < end; ++i) {
        if (!mine[i]) continue;
        mine[i] = false;
        node.shm_locks[i] = exclusive ? 0 : node.shm_locks[i] - 1;
      }
      return SQLITE_OK;
    }
    for (std::size_t i = begin; i < end; ++i) {
      bool free = exclusive ? node.shm_locks[i] == 0 : node.shm_locks[i] >= 0;
      if (!mine[i] && !free) return SQLITE_BUSY;
    }
    for (std::size_t i = begin; i < end; ++i) {
      if (mine[i]) continue;
      mine[i] = true;
      node.shm_locks[i] = exclusive ? -1 : node.shm_locks[i] + 1;
    }
    return SQLITE_OK;
  }

  static void shm_barrier(sqlite3_file*) { std::lock_guard guard(instance().mutex_); }

  static int shm_unmap(sqlite3_file* file, int) {
    FaultVfs& faults = instance();
    std::lock_guard guard(faults.mutex_);
    Handle& self = handle(file);
    if (!self.maps_shm) return SQLITE_OK;
    self.maps_shm = false;
    Inode& node = faults.inode(self);
    for (std::size_t i = 0; i < SQLITE_SHM_NLOCK; ++i) {
      if (self.shm_exclusive[i]) node.shm_locks[i] = 0;
      if (self.shm_shared[i]) --node.shm_locks[i];
    }
    self.shm_exclusive = {};
    self.shm_shared = {};
    if (--node.shm_users == 0) node.regions.clear();
    return SQLITE_OK;
  }

  // ---

  static int file_control(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
  static int sector_size(sqlite3_file*) { return 4096; }
  static int characteristics(sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }

  static constexpr sqlite3_io_methods kMethods = {2,
                                                  close,
                                                  read,
                                                  write,
                                                  truncate,
                                                  sync,
                                                  file_size,
                                                  lock,
                                                  unlock,
                                                  check_reserved,
                                                  file_control,
                                                  sector_size,
                                                  characteristics,
                                                  shm_map,
                                                  shm_lock,
                                                  shm_barrier,
                                                  shm_unmap,
                                                  nullptr,
                                                  nullptr};

  sqlite3_vfs vfs_;
  std::atomic<FileSystem*> files_{nullptr};
  std::mutex mutex_;
  std::map<std::string, Inode> inodes_;  // guarded by mutex_; of open files only
};

}  // namespace offprint::database::testing
