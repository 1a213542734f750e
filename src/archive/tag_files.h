#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "archive/object_store.h"
#include "base/file_system.h"
#include "base/result.h"
#include "database/store.h"

namespace offprint::archive {

// Keeps the files of a node's tags beside its archived list of databases, which names them: no
// retention ends them. Format: docs/format/archive.md, "Tags". Thread: one at a time. Blocks.
class TagFiles {
 public:
  // `folder`: tags/ of the data folder; it need not be there. The references must outlive it.
  TagFiles(ObjectStore& objects, FileSystem& files, std::string folder, database::Store& store)
      : objects_(objects), files_(files), folder_(std::move(folder)), store_(store) {}

  // Before the list that names them is put: then who has that list has them.
  Result<> put_new();
  // After it: those that it names no more, as far as they were dropped here; others that were put
  // before `before_ms` (Unix time).
  Result<> remove_dropped(std::int64_t before_ms);

 private:
  struct Known {
    std::int64_t put_ms = 0;
    bool is_local = false;  // or was
  };
  // What a tag names: a file, or in a cluster a database.
  struct Local {
    std::string file_name;
    std::optional<std::uint64_t> database = {};
    std::int64_t made_ms = 0;  // of the database
  };
  Result<> list_objects();
  Result<> list_local();
  void list_states();
  // Nothing: it was dropped just now.
  Result<std::optional<ObjectInfo>> put(const std::string& key, const Local& local);
  Result<std::shared_ptr<File>> open(const Local& local);

  ObjectStore& objects_;
  FileSystem& files_;
  const std::string folder_;
  database::Store& store_;
  std::optional<std::map<std::string, Known>> known_;  // by key: what the archive has
  std::map<std::string, Local> local_;                 // by key
};

// Fetches the files of the tags that a list of databases (an SQLite file) names into `folder`; what
// the archive lacks or has damaged is left out. Each is proven. Needs the folder `scratch`. Answers
// what was left out, and why.
Result<std::vector<std::string>> fetch_tag_files(ObjectStore& objects, FileSystem& files,
                                                 const std::string& catalog_file,
                                                 const std::string& folder,
                                                 const std::string& scratch);

}  // namespace offprint::archive
