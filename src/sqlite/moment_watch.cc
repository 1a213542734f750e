#include "sqlite/moment_watch.h"

#include <ctime>

#include "base/assert.h"

namespace offprint::sqlite {
namespace {

int (*system_time)(sqlite3_vfs*, sqlite3_int64*) = nullptr;  // set once, before any connection

}  // namespace

thread_local MomentWatch* MomentWatch::innermost_ = nullptr;

int MomentWatch::current_time(sqlite3_vfs* vfs, sqlite3_int64* julian_ms) {
  if (innermost_ == nullptr) return system_time(vfs, julian_ms);
  innermost_->was_asked_ = true;
  return SQLITE_ERROR;  // SQLite's functions then answer NULL
}

// 0: `parts`, a tm, has it.
int MomentWatch::local_time(const void* seconds, void* parts) {
  if (innermost_ != nullptr) {
    innermost_->was_asked_zone_ = true;
    return 1;
  }
  return ::localtime_r(static_cast<const std::time_t*>(seconds), static_cast<std::tm*>(parts)) ==
         nullptr;
}

void MomentWatch::install() {
  sqlite3_vfs* vfs = sqlite3_vfs_find(nullptr);
  OFFPRINT_ASSERT(vfs != nullptr && vfs->iVersion >= 2 && vfs->xCurrentTimeInt64 != nullptr);
  system_time = vfs->xCurrentTimeInt64;
  vfs->xCurrentTimeInt64 = &MomentWatch::current_time;
  // SQLite has no other way to ask for this: 2 means that it asks the function that is given.
  sqlite3_test_control(SQLITE_TESTCTRL_LOCALTIME_FAULT, 2, &MomentWatch::local_time);
}

}  // namespace offprint::sqlite
