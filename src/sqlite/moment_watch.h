#pragma once

#include <sqlite3.h>

namespace offprint::sqlite {

// While one lives, SQL that runs on this thread gets no current time: date('now'),
// CURRENT_TIMESTAMP, strftime() without a time are NULL, however they come by it; and no time of
// the machine's zone: 'localtime' and 'utc' are errors. That they asked is noted. For what must
// answer the same each time and everywhere: look at was_asked() and was_asked_zone() after each
// step, before its row is used. It rests on initialize(). Thread: that of the statements; of
// several the innermost counts.
class MomentWatch {
 public:
  MomentWatch() : outer_(innermost_) { innermost_ = this; }
  ~MomentWatch() { innermost_ = outer_; }
  MomentWatch(const MomentWatch&) = delete;
  MomentWatch& operator=(const MomentWatch&) = delete;

  bool was_asked() const { return was_asked_; }
  bool was_asked_zone() const { return was_asked_zone_; }

  // The clock of the default VFS, which others come back to, and SQLite's local time ask here from
  // then on. Once, by initialize().
  static void install();

 private:
  static int current_time(sqlite3_vfs* vfs, sqlite3_int64* julian_ms);
  static int local_time(const void* seconds, void* parts);

  static thread_local MomentWatch* innermost_;
  MomentWatch* const outer_;
  bool was_asked_ = false, was_asked_zone_ = false;
};

}  // namespace offprint::sqlite
