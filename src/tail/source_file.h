#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "ltx/types.h"
#include "sqlite/connection.h"
#include "tail/wal_reader.h"

namespace offprint::tail {

// What stands at the head of a program's file.
enum class FileKind {
  kWal,
  kRollback,  // a database, but its journal is no -wal
  kEmpty,
  kForeign,  // no SQLite database
};

// A database's schema as one text; equal texts with equal cookies: the same to who remembers it.
inline constexpr char kSchemaTextSql[] =
    "SELECT coalesce(group_concat(line, char(10)), '') FROM (SELECT quote(type) || quote(name) || "
    "quote(tbl_name) || quote(rootpage) || quote(sql) AS line FROM sqlite_schema ORDER BY rowid)";

// One of our connections to a program's own file, with SQLite's stock VFS, and the read transaction
// on it. No other descriptor of this process may ever be opened on that file or its -shm: closing
// it would drop SQLite's locks. What a held read transaction is good for:
// docs/tailing.md, "Why nothing is missed". Thread: one at a time; is_newest() and backfilled()
// only look at shared memory.
class SourceFile {
 public:
  // kNotFound: there is none. kForbidden: no right to write it (its locks need that).
  static Result<std::unique_ptr<SourceFile>> open(const std::string& path);

  FileKind kind() const { return kind_; }
  std::uint32_t page_size() const { return page_size_; }
  // Turns a kRollback file into a kWal one. kBusy: its program is in the way.
  Result<> set_wal();

  // For one that will only wait: it lets go of all memory that SQLite can do without.
  Result<> slim_down();
  // Nothing is looked at for a while: the wal-index is mapped, and takes no memory of this process
  // until then.
  void rest() const;
  // It has read no pages, and remembers nothing but its place.
  bool is_slim() const { return !page_; }

  // A read transaction of the newest state. kBusy: a program holds the file exclusively.
  Result<> begin();
  // The same, and no other connection writes until end(). kBusy: one is writing.
  Result<> begin_alone();
  void end();
  bool is_reading() const { return reading_; }

  // Of the read transaction: where it stands, and the database there.
  const WalPlace& place() const { return place_; }
  Result<std::uint32_t> page_count();
  // Valid until the next call.
  Result<ByteView> page(PageNo page);
  Result<std::string> schema_text();
  // SQLite lets the next writer begin the -wal anew, once, while this transaction is open: all that
  // it sees is in the database file itself.
  bool lets_restart() const { return lets_restart_; }
  // It was begun when the file had all: surely no checkpoint or restart of the -wal waits for it.
  bool is_out_of_the_way() const { return out_of_the_way_; }
  bool is_newest() const;
  // Frames of the -wal that are in the database file.
  std::uint32_t backfilled() const;
  // How often the -wal was begun anew since; very often when that cannot be told now.
  std::uint32_t generations_since() const;
  // Frames in the -wal now.
  std::uint32_t frames() const;

  // A program's checkpoint runs now, or waits for its readers. One that begins at the very moment
  // of this question is busy at once, as beside another checkpoint.
  bool is_checkpointed() const;

  Result<std::size_t> read_wal_at(std::uint64_t offset, std::span<std::uint8_t> to);
  // No transaction may be open. `mode` as SQLite's; what cannot be done is left.
  Result<> checkpoint(int mode);
  // What is closed now leaves -wal and -shm as they are: they may be another file's.
  void leave_as_is();

 private:
  explicit SourceFile(sqlite::Connection connection) : connection_(std::move(connection)) {}
  Result<> look_at_head();
  void note_place();

  mutable sqlite::Connection connection_;
  sqlite::Statement begin_, look_, end_, page_;
  FileKind kind_ = FileKind::kEmpty;
  std::uint32_t page_size_ = 0;
  const volatile void* wal_index_ = nullptr;
  bool reading_ = false;
  WalPlace place_;
  bool lets_restart_ = false;
  bool out_of_the_way_ = false;
  std::optional<std::uint32_t> page_count_;
};

}  // namespace offprint::tail
