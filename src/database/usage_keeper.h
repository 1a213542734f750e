#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "database/catalog.h"
#include "database/environment.h"

namespace offprint::database {

// Brings what databases were used for into the catalog: at intervals, at the end of a month, when
// somebody asks, and at the end. A process that is killed loses the last interval. Thread: any.
class UsageKeeper {
 public:
  // The size of a database's file; nothing when there is none of that name and number.
  using SizeOf =
      std::function<std::optional<std::uint64_t>(const std::string& name, std::uint64_t id)>;
  UsageKeeper(Environment& environment, SizeOf size_of)
      : environment_(environment), size_of_(std::move(size_of)) {}

  // `catalog` must serve until stop(). Blocks.
  void start(Catalog& catalog);
  // Durable when it returns; what could not be kept is tried again the next time. Blocks.
  Result<> flush();
  // This month and those before it that are kept, newest first.
  std::vector<std::string> months_kept() const;
  // The last time. Blocks.
  void stop();

 private:
  void arm();
  Result<> flush_locked();
  Result<> begin_month(const std::string& month);

  Environment& environment_;
  const SizeOf size_of_;
  std::mutex mutex_;
  // --- guarded by mutex_
  Catalog* catalog_ = nullptr;  // null before start() and after stop()
  std::string month_;           // of what was counted since the last time
};

}  // namespace offprint::database
