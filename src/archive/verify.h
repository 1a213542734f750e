#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "archive/object_store.h"
#include "archive/restore.h"
#include "base/file_system.h"
#include "base/result.h"

namespace offprint::archive {

struct VerifyOptions {
  std::string scratch;  // a folder with space for the database
  // Steps done and how many there are. Called on the caller's thread.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;
  const std::atomic<bool>* cancelled = nullptr;
  FileSystem* files = &FileSystem::real();
};

struct Verified {
  std::size_t files = 0;
  std::uint64_t bytes = 0;
  std::vector<Restored> moments;    // each snapshot's, then the newest one, as they were restored
  std::vector<std::string> damage;  // what is wrong, object by object; empty: nothing
  std::vector<std::string> damaged_keys;  // objects that are not what they must be
};

// Proves that a database's archive is sound: reads every file to its end, and restores each
// snapshot and the newest moment into a scratch file, which goes again; and looks for missing
// objects. The archive may be written meanwhile: what is removed then is no damage. Blocks. Thread:
// any.
// Errors: kNotFound no archive; kUnavailable cancelled, or the store does not answer; damage is no
// error but in the answer.
Result<Verified> verify_archive(ObjectStore& store, const std::string& prefix,
                                const VerifyOptions& options);

}  // namespace offprint::archive
