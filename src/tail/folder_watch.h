#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"

namespace offprint::tail {

// Notices that files were made, removed or replaced, by their folders, and that they were written,
// by themselves (inotify): one descriptor for all of them. What it says is a hint; notices can get
// lost when there are too many. Whoever writes pays for each notice, also where only the folder is
// watched. Thread: one; descriptor() can be waited on.
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
  // While the folder of `path` is not there: notices when it may have been made, by the nearest
  // folder above it that is there. Until add(). kNotFound: that one went just now; kFull: as add().
  Result<> await(const std::string& path);
  // Until it is added again nothing of that folder is noticed but what its files say themselves.
  void remove(const std::string& folder);
  // Watches the file itself that has this name now; once more when it has another one. kNotFound,
  // kFull: as add().
  Result<> add_file(const std::string& path);
  void remove_file(const std::string& path);
  struct Notice {
    std::string folder;    // as in the path that was added, without its last slash
    std::string name;      // in it; empty: the folder itself, or anything in it
    bool written = false;  // and that is all that happened to the file
    bool operator==(const Notice&) const = default;
  };
  // What has come since; never waits. A folder that is gone is not watched any more.
  std::vector<Notice> read();

  // The folder of a path, and the name in it.
  static std::pair<std::string, std::string> split(const std::string& path);

 private:
  struct Meaning {
    std::string folder;
    std::string name;         // of a file that is watched itself
    bool is_awaited = false;  // the folder, which is not there
    bool operator==(const Meaning&) const = default;
  };
  explicit FolderWatch(int descriptor) : descriptor_(descriptor) {}
  Result<int> watch(const std::string& path, std::uint32_t events, Meaning says);
  Result<> watch_named(const std::string& path, std::uint32_t events, Meaning says);
  void unwatch(const std::string& path);
  void stop_awaiting(const std::string& folder);

  int descriptor_;
  // By the system's number: folders, files with their names, and what stands above awaited ones.
  std::unordered_map<int, std::vector<Meaning>> watched_;
  std::unordered_map<std::string, int> numbers_;  // of paths
  std::unordered_map<std::string, int> awaited_;  // folders, by what is above them
};

}  // namespace offprint::tail
