#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/bytes.h"
#include "base/file_system.h"
#include "base/result.h"
#include "database/state.h"
#include "journal/journal.h"

namespace offprint::database {

// Where a log that several nodes have in common goes on.
struct LogBeginning {
  std::uint32_t group = 0;  // of the journal
  journal::Lsn last;        // all up to this record is in the databases
  Epoch epoch;              // of that record
  Epoch promised;           // nobody of an earlier epoch is followed
};

// A store's folder made of databases as another node has them. It grows in DIRECTORY/filling;
// whenever that is cut short, nothing else has changed. Thread: one. Blocks. Errors: kCorrupt, what
// came contradicts itself; kFull, kIo.
class FolderFill {
 public:
  // What an earlier one left behind goes.
  static Result<FolderFill> begin(FileSystem& files, const std::string& directory);

  // Another database: its number, and its DatabaseState as that encodes itself. It takes the place
  // of an earlier one of this number.
  Result<> database(std::uint64_t id, ByteView state);
  // The next pages of it, whole ones, from page 1 on; of the lock page zeros.
  Result<> pages(ByteView images);
  // Everything has come: those with these numbers are the folder's databases. `mark`: what the file
  // MARK of the folder is to say. From here on take_over() makes it the folder.
  Result<> finish(std::span<const std::uint64_t> databases, const LogBeginning& log, ByteView mark);

  // The file whose content finish() was given.
  static constexpr const char* kMark = "node";
  // Where it grows.
  static std::string folder(const std::string& directory);
  // Whether there is a finished one that waits for take_over().
  static Result<bool> is_finished(FileSystem& files, const std::string& directory);
  // Makes a finished one, if there is one, the folder's databases and journal; those that are there
  // go. Call it at each start, before the folder is looked at. Cut short, it goes on.
  static Result<> take_over(FileSystem& files, const std::string& directory);

 private:
  struct Filled {
    DatabaseState state;
    std::string path;
  };
  FolderFill(FileSystem& files, std::string directory)
      : files_(&files), directory_(std::move(directory)) {}
  Result<> end_database();

  FileSystem* files_;
  std::string directory_;
  std::map<std::uint64_t, Filled> filled_;
  // --- of the database that is coming
  std::optional<std::uint64_t> id_;
  std::unique_ptr<File> file_;
  std::uint32_t pages_ = 0;
  Checksum checksum_;
};

}  // namespace offprint::database
