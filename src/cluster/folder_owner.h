#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/file_system.h"
#include "cluster/group_record.h"
#include "journal/journal.h"

namespace offprint::cluster {

// Whose a data folder is: DATA/node, docs/format/cluster-records.md. Value type.
struct FolderOwner {
  std::string cluster;
  RecordMember member;
  // The folder was in no cluster before, or left it: it may begin this one while its log promises
  // nothing beyond this.
  std::optional<Epoch> begins = {};
  bool leaves = false;  // `cluster leave` was begun: nothing else may be done with it

  // A new member.
  static FolderOwner make(const std::string& cluster, const std::string& node);
  // Nothing: the folder is a single node's. kInvalid: written by a newer version; kCorrupt.
  static Result<std::optional<FolderOwner>> read(FileSystem& files, const std::string& data);
  std::string text() const;
  Result<> write(FileSystem& files, const std::string& data) const;
  // It is a single node's.
  static Result<> remove(FileSystem& files, const std::string& data);
};

// The journal of a folder that no server has. While it is open none can have it.
Result<std::unique_ptr<journal::Journal>> open_journal(
    FileSystem& files, const std::string& data,
    const journal::Journal::Visitor& visitor = [](const journal::Record&) { return Result<>(); });

}  // namespace offprint::cluster
