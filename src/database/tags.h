#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "database/catalog.h"
#include "database/store.h"

namespace offprint::database {

// States of databases that have names: kept until they are dropped, each as an LTX snapshot in
// tags/ of the data folder, listed in the catalog. Thread: any. Blocks.
class Tags {
 public:
  Tags(FileSystem& files, std::string directory, Catalog& catalog)
      : files_(files), directory_(std::move(directory)), catalog_(catalog) {}

  // Of a tag's file in its folder.
  static std::string file_name(std::uint64_t database_id, const std::string& tag);
  // Removes files that no tag has, and tags that have no file (an archive may not have had it).
  Result<> start();
  // kConflict: the database has such a tag; kInvalid: not a tag's name.
  Result<TagInfo> add(std::uint64_t database_id, const std::string& tag, Snapshot& state);
  // kNotFound.
  Result<> remove(std::uint64_t database_id, const std::string& tag);
  // All of a database that was dropped.
  void remove_all(std::uint64_t database_id);
  Result<TagInfo> find(std::uint64_t database_id, const std::string& tag);
  Result<std::unique_ptr<Snapshot>> open(std::uint64_t database_id, const TagInfo& tag);

 private:
  Result<TagInfo> add_one(std::uint64_t database_id, const std::string& tag, Snapshot& state);
  std::string folder() const { return directory_ + "/tags"; }
  std::string file_of(std::uint64_t database_id, const std::string& tag) const;

  FileSystem& files_;
  const std::string directory_;
  Catalog& catalog_;
  std::mutex mutex_;  // held while one is added or removed
};

}  // namespace offprint::database
