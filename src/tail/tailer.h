#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "database/store.h"
#include "tail/file_tail.h"

namespace offprint::tail {

// A program's file, and the database that follows it.
struct TailedFile {
  database::DatabaseName name;
  std::string path;
};

struct TailerOptions {
  std::vector<TailedFile> files;
  FileTailOptions each;  // its folder is made
  int threads = 4;       // that read files and wait for the store, at most
};

// Follows programs' own files: databases of a store, one a file. One thread notices what happens to
// the files, a few do what there is to do; a file in which nothing happens costs no time. Thread:
// any.
class Tailer {
 public:
  // `store` must outlive it. kInvalid: a database or a file is named twice.
  static Result<std::unique_ptr<Tailer>> create(TailerOptions options, database::Store& store);
  // Stops.
  virtual ~Tailer() = default;
  // Every database is there when it returns, if it can be, even when its file is not. Blocks.
  virtual Result<> start() = 0;
  // Blocks until what was begun is done; lets go of the files. Idempotent.
  virtual void stop() = 0;

  virtual std::vector<TailStatus> status() const = 0;
  // Nothing: it follows no file.
  virtual std::optional<TailStatus> status(const std::string& name) const = 0;
};

// "NAME=PATH". kInvalid: it is something else, or no name.
Result<TailedFile> parse_tailed_file(const std::string& text);

}  // namespace offprint::tail
