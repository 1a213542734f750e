#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_system.h"
#include "database/catalog.h"
#include "database/store.h"
#include "ltx/codec.h"

namespace offprint::database {

// States of databases that have names: kept until they are dropped, listed in the catalog. Each is
// an LTX snapshot in tags/ of the data folder, which this has; or a database of its own, which is
// never written again: that is what the nodes of a cluster have in common. Thread: any. Blocks.
class Tags {
 public:
  Tags(FileSystem& files, std::string directory, Catalog& catalog)
      : files_(files), directory_(std::move(directory)), catalog_(catalog) {}

  // Of a tag's file in its folder.
  static std::string file_name(std::uint64_t database_id, const std::string& tag);
  // What such a database is called, and what the names of all that belong to one begin with.
  static std::string state_name(std::uint64_t database_id, const std::string& tag);
  static std::string state_prefix(std::uint64_t database_id);
  // Of a tag's file, as the name of such a database says; empty: it is none.
  static std::string file_name_of_state(std::string_view state_name);
  // What a tag's file holds; `made_ms` stands in it.
  static Result<> write(Snapshot& state, std::int64_t made_ms, ltx::ByteSink& sink);
  // kInvalid: not a tag's name, or there is nothing to keep.
  static Result<> check(const std::string& tag, const Snapshot& state);

  // Removes files that no tag has, and tags that have neither a file (an archive may not have had
  // it) nor one of the databases `states`, by name.
  Result<> start(const std::set<std::string>& states);
  // kConflict: the database has such a tag; kInvalid: not a tag's name.
  Result<TagInfo> add(std::uint64_t database_id, const std::string& tag, Snapshot& state);
  // kNotFound.
  Result<> remove(std::uint64_t database_id, const std::string& tag);
  // All of a database that was dropped.
  void remove_all(std::uint64_t database_id);
  Result<TagInfo> find(std::uint64_t database_id, const std::string& tag);
  // kNotFound: this node does not have its file.
  Result<std::unique_ptr<Snapshot>> open(std::uint64_t database_id, const TagInfo& tag);
  bool has_file(std::uint64_t database_id, const std::string& tag) {
    return files_.exists(file_of(database_id, tag)).value_or(false);
  }
  // Its file, if there is one, is not needed any more.
  Result<> remove_file(std::uint64_t database_id, const std::string& tag) {
    return files_.remove(file_of(database_id, tag));
  }

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
