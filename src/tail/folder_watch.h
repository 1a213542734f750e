#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"

namespace offprint::tail {

// Notices that files were written, made, removed or replaced, by their folders (inotify): one
// descriptor for all of them. What it says is a hint; notices can get lost when there are too many.
// Thread: one; descriptor() can be waited on.
class FolderWatch {
 public:
  static Result<FolderWatch> create();
  FolderWatch(FolderWatch&& other) noexcept;
  FolderWatch& operator=(FolderWatch&&) = delete;
  ~FolderWatch();

  int descriptor() const { return descriptor_; }
  // Watches the folder of `path`; again when it is watched already is no error, and mends a folder
  // that was replaced. kNotFound: there is no such folder. kFull: the system allows no more
  // (fs.inotify.max_user_watches).
  Result<> add(const std::string& path);
  struct Notice {
    std::string folder;  // as in the path that was added, without its last slash
    std::string name;    // in it; empty: the folder itself, or anything in it
  };
  // What has come since; never waits. A folder that is gone is not watched any more.
  std::vector<Notice> read();

  // The folder of a path, and the name in it.
  static std::pair<std::string, std::string> split(const std::string& path);

 private:
  explicit FolderWatch(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
  std::unordered_map<int, std::vector<std::string>> folders_;  // by the system's number
};

}  // namespace offprint::tail
