#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/file_system.h"

namespace offprint {

// Files in memory that fail as real ones do: for tests. Remembers what was synced and what was not,
// loses the latter at a power loss, tears writes, fails operations on demand and can be full.
//
// What a power loss leaves of a file: its content at the last successful sync, plus an arbitrary
// choice, 512-byte sector by sector, of what was written since (a sector may be torn; bytes that
// were not written never change). Of the names: those at the last sync_directory of their folder,
// plus an arbitrary choice of later creations, removals and renames (each whole). Thread: any.
class FaultFileSystem final : public FileSystem {
 public:
  enum class Operation {
    kOpen,
    kRead,
    kWrite,
    kSync,
    kSize,
    kTruncate,
    kAllocate,
    kRename,
    kRemove,
    kExists,
    kSetModified,
    kList,
    kMakeDirectory,
    kSyncDirectory,
  };
  static const char* operation_name(Operation operation);
  struct Call {
    Operation operation;
    std::string path;  // the first one, when there are two
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
    std::uint64_t number = 0;  // of this call since the start, from 0, over all operations
  };
  // Answers an error number (EIO, ENOSPC …) to fail the call with, or 0. Called with no lock held,
  // from any thread.
  using Hook = std::function<int(const Call&)>;

  FaultFileSystem();
  ~FaultFileSystem() override;

  // --- what goes wrong
  void set_hook(Hook hook);
  // The n-th call from now on (0: the next) that changes something or syncs fails once with
  // `error_number`.
  void fail_mutation(std::uint64_t n, int error_number);
  // The same for one operation.
  void fail(Operation operation, std::uint64_t n, int error_number);
  // No more than `bytes` in all files together; beyond that ENOSPC.
  void set_capacity(std::uint64_t bytes);
  // Files whose path holds this are said to be synced and are not, as by a disk that lies or a
  // program that forgets to. Empty: none.
  void ignore_syncs(const std::string& part_of_path);
  // Everything that was not synced goes, by the dice of `seed`; open files answer EIO from now on.
  void power_loss(std::uint64_t seed);
  // The process dies: open files answer EIO from now on, the content stays as last written.
  void process_crash();
  // At the call with this number (call_count() is the next one's) the machine stops: power loss by
  // the dice of `power_loss_seed`, or, without one, only the process dies. From then on everything
  // answers EIO until restart(), so that what still runs of the dead process changes nothing.
  void crash_at(std::uint64_t number, std::optional<std::uint64_t> power_loss_seed);
  // The machine runs again; a crash that has not happened is called off.
  void restart();

  // --- what happened
  std::uint64_t call_count() const;
  std::uint64_t call_count(Operation operation) const;
  std::uint64_t used_bytes() const;
  // Changes bytes behind everybody's back, as bit rot does; synced and current content alike.
  void corrupt(const std::string& path, std::uint64_t offset, std::uint8_t xor_with);
  // The content as a reader would see it now; empty if there is no such file.
  Bytes content(const std::string& path) const;
  // Makes or replaces a file, synced, name included; folders too.
  void put(const std::string& path, ByteView content);
  // An independent copy of everything, nothing of it open.
  std::unique_ptr<FaultFileSystem> clone() const;

  // --- FileSystem
  Result<std::unique_ptr<File>> open(const std::string& path, Mode mode) override;
  Result<> rename(const std::string& from, const std::string& to) override;
  Result<> rename_new(const std::string& from, const std::string& to) override;
  Result<> remove(const std::string& path) override;
  Result<std::optional<FileStatus>> status(const std::string& path) override;
  Result<> set_modified(const std::string& path, std::int64_t modified_ms) override;
  Result<bool> exists(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& directory) override;
  Result<> create_directories(const std::string& directory) override;
  Result<> sync_directory(const std::string& directory) override;

 private:
  struct Node;        // a file's content, with or without a name
  struct NameChange;  // not yet synced
  class OpenFile;
  using Names = std::map<std::string, std::shared_ptr<Node>>;  // by path; a folder is a Node too

  // An error number to fail with, or 0; counts the call.
  void lose_unsynced(std::uint64_t seed);  // mutex_ held
  int enter(Operation operation, const std::string& path, std::uint64_t offset = 0,
            std::uint64_t size = 0);
  void change_names(NameChange change);  // mutex_ held
  static void apply(const NameChange& change, Names& names);
  bool ignores_sync(const std::string& path) const {  // mutex_ held
    return !unsynced_part_.empty() && path.contains(unsynced_part_);
  }
  bool room_for(const Node& node, std::uint64_t size) const;  // mutex_ held
  std::uint64_t used_locked() const;                          // mutex_ held
  std::shared_ptr<Node> find(const std::string& path) const;  // mutex_ held

  mutable std::mutex mutex_;
  // State below is protected by mutex_.
  Names names_;
  Names durable_names_;
  std::vector<NameChange> name_changes_;
  std::vector<std::weak_ptr<Node>> nodes_;
  std::uint64_t capacity_ = UINT64_MAX;
  std::string unsynced_part_;     // see ignore_syncs()
  std::uint64_t generation_ = 0;  // of open files: those of an older one are dead
  Hook hook_;
  std::uint64_t calls_ = 0;
  std::map<Operation, std::uint64_t> calls_by_operation_;
  struct Planned {
    std::optional<Operation> operation;  // none: any that changes or syncs
    std::uint64_t left;
    int error_number;
  };
  std::vector<Planned> planned_;
  struct PlannedCrash {
    std::uint64_t number;
    std::optional<std::uint64_t> power_loss_seed;
  };
  std::optional<PlannedCrash> planned_crash_;
  bool down_ = false;
};

}  // namespace offprint
