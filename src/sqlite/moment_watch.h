#pragma once

#include <sqlite3.h>

namespace offprint::sqlite {

// While one lives, SQL that runs on this thread gets no current time: date('now'),
// CURRENT_TIMESTAMP, strftime() without a time are NULL, however they come by it, and that they
// asked is noted. For what must answer the same each time: look at was_asked() after each step,
// before its row is used. It rests on initialize(). Thread: that of the statements; of several the
// innermost counts.
class MomentWatch {
 public:
  MomentWatch() : outer_(innermost_) { innermost_ = this; }
  ~MomentWatch() { innermost_ = outer_; }
  MomentWatch(const MomentWatch&) = delete;
  MomentWatch& operator=(const MomentWatch&) = delete;

  bool was_asked() const { return was_asked_; }

  // The clock of the default VFS, which others come back to, asks here from then on. Once, by
  // initialize().
  static void install();

 private:
  static int current_time(sqlite3_vfs* vfs, sqlite3_int64* julian_ms);

  static thread_local MomentWatch* innermost_;
  MomentWatch* const outer_;
  bool was_asked_ = false;
};

}  // namespace offprint::sqlite
