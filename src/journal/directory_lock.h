#pragma once

#include <memory>
#include <string>

#include "base/result.h"

namespace offprint::journal {

// Keeps a folder of the machine's own files for one owner: flock on DIRECTORY/LOCK, released by the
// destructor and by the end of the process. Thread: any.
class DirectoryLock {
 public:
  // kBusy: someone else, or this process already, holds it.
  static Result<std::unique_ptr<DirectoryLock>> acquire(const std::string& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  explicit DirectoryLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

}  // namespace offprint::journal
