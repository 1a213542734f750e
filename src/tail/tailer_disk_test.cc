// The disk of the data folder is full while a program's file is taken.
#include <sqlite3.h>

#include <atomic>

#include <gmock/gmock.h>

#include "tail/file_tail.h"
#include "tail/tail_testing.h"

namespace offprint::tail::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// The default VFS, with no room for a -wal while `is_full`.
class FullDisk {
 public:
  static constexpr char kName[] = "full disk";
  static inline std::atomic<bool> is_full{false};

  static void add() {
    base_ = sqlite3_vfs_find(nullptr);
    vfs_ = *base_;
    vfs_.zName = kName;
    vfs_.pNext = nullptr;
    vfs_.xOpen = open;
    ASSERT_EQ(sqlite3_vfs_register(&vfs_, 0), SQLITE_OK);
  }

 private:
  static int open(sqlite3_vfs*, const char* name, sqlite3_file* file, int flags, int* out) {
    const int rc = base_->xOpen(base_, name, file, flags, out);
    if (rc != SQLITE_OK || (flags & SQLITE_OPEN_WAL) == 0) return rc;
    file_ = file->pMethods;
    methods_ = *file_;
    methods_.xWrite = write;
    file->pMethods = &methods_;
    return rc;
  }
  static int write(sqlite3_file* file, const void* bytes, int size, sqlite3_int64 at) {
    return is_full ? SQLITE_FULL : file_->xWrite(file, bytes, size, at);
  }

  static inline sqlite3_vfs* base_ = nullptr;
  static inline sqlite3_vfs vfs_{};
  static inline const sqlite3_io_methods* file_ = nullptr;  // the same of each -wal
  static inline sqlite3_io_methods methods_{};
};

// What the journal has of the file and the database's own file has not is taken from the journal.
TEST_F(TailTest, AFullDiskThatHasRoomAgainIsNoError) {
  FullDisk::add();
  options_.base_vfs = FullDisk::kName;
  open();
  FileTail tail(*store_, name("orders"), path_, tail_options_.each);
  std::filesystem::create_directories(tail_options_.each.directory);
  tail.step(true);
  EXPECT_EQ(tail.status().state, TailState::kWaiting) << "the database is there, the file is not";
  auto writer = program();
  run(writer, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
  FullDisk::is_full = true;
  tail.step(true);
  EXPECT_EQ(tail.status().state, TailState::kFailed);
  EXPECT_THAT(tail.status().error, HasSubstr("full"));
  run(writer, "INSERT INTO t VALUES(2)");  // its own disk is another one
  FullDisk::is_full = false;
  EXPECT_TRUE(wait_until([&] {
    tail.step(true);
    EXPECT_THAT(tail.status().error, Not(HasSubstr("does not follow")));
    return tail.status().state == TailState::kFollowing && equal();
  })) << tail.status().error;
  EXPECT_EQ(query("orders", "SELECT count(*) FROM t"), "2");
}

}  // namespace
}  // namespace offprint::tail::testing
