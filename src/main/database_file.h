#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "sqlite/connection.h"

// The local side of import and export.
namespace offprint {

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using FileHandle = std::unique_ptr<std::FILE, CloseFile>;

// A file of this process that nobody else sees and that is gone when the process ends.
struct TemporaryFile {
  std::string path;
  // In TMPDIR, else /tmp.
  static Result<std::unique_ptr<TemporaryFile>> create();
  ~TemporaryFile();  // removes it, and SQLite's companions
};

// One consistent state of an SQLite file, or another file, as bytes, for as long as this lives.
struct Upload {
  std::unique_ptr<TemporaryFile> temporary;  // when the bytes had to be made first
  std::optional<sqlite::Connection> reader;  // otherwise: keeps other programs from changing them
  FileHandle content;
  std::uint64_t size = 0;
};
enum class FileKind { kDatabase, kScript, kCsv, kTsv, kJsonLines };

// What a file is by the ending of its name: .sql, .csv, .tsv, .jsonl or .ndjson, else an SQLite
// file.
FileKind kind_of(const std::string& path);

// An SQLite file as it stands, everything else sent as it is. Errors: kInvalid with the path.
Result<std::unique_ptr<Upload>> open_for_upload(const std::string& path, FileKind kind);

// Makes FILE of the bytes that it is given. FILE appears whole or not at all.
class ExportTarget {
 public:
  // kConflict: FILE exists, and `force` is not set; or a program is at work on it.
  static Result<std::unique_ptr<ExportTarget>> create(const std::string& path, bool force);
  ~ExportTarget();
  Result<> write(ByteView piece);
  Result<> finish();

 private:
  ExportTarget(std::string path, bool force) : path_(std::move(path)), force_(force) {}

  const std::string path_;
  const bool force_;
  std::string part_path_;  // beside FILE
  FileHandle part_;
};

}  // namespace offprint
