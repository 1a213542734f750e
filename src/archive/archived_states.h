#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "archive/object_store.h"
#include "archive/restore.h"
#include "base/file_system.h"
#include "database/store.h"

namespace offprint::archive {

// States of databases that only the archive has, for reading. A state is restored into a file of a
// folder of its own when it is asked for; some are kept there for those who ask again. Thread: any.
class ArchivedStates final : public database::OlderStates {
 public:
  struct Options {
    std::string folder;                    // its own: emptied at the start
    std::uint64_t bytes_max = 4ULL << 30;  // of kept files; the newest one stays in any case
    FileSystem* files = &FileSystem::real();
  };
  // `objects` must outlive it. kIo and so on: the folder.
  static Result<std::unique_ptr<ArchivedStates>> open(ObjectStore& objects, const Options& options);

  Result<Bookmark> bookmark_at(const database::DatabaseName& name, std::int64_t time_ms) override;
  Result<std::unique_ptr<database::Snapshot>> snapshot_at(const database::DatabaseName& name,
                                                          const Bookmark& at) override;

 private:
  struct Kept {
    std::string name;  // of the database
    Bookmark at;
    std::string path;
    Restored restored;
    std::uint64_t bytes = 0;
  };
  ArchivedStates(ObjectStore& objects, const Options& options)
      : objects_(objects), options_(options) {}
  Result<std::unique_ptr<database::Snapshot>> open_kept(const Kept& kept);
  void make_room();

  ObjectStore& objects_;
  const Options options_;
  std::mutex mutex_;         // held while a state is restored: one at a time
  std::list<Kept> kept_;     // the last used first; guarded by mutex_
  std::uint64_t count_ = 0;  // of files; guarded by mutex_
};

}  // namespace offprint::archive
