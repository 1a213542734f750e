#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "database/environment.h"
#include "database/store.h"

namespace offprint::database {

// Runs requests on earlier states of databases. A state that was read a moment ago is kept, a few
// of them: making it may take long. Thread: any.
class PastReads {
 public:
  // How long a state that nobody reads is kept: it pins its database's -wal.
  static constexpr auto kKept = std::chrono::seconds(10);

  explicit PastReads(Environment& environment) : environment_(environment) {}

  struct Source {
    std::uint64_t database_id = 0;
    Bookmark at;
    CreateOptions options;
    DatabaseLimits limits;
    std::function<Result<std::unique_ptr<Snapshot>>()> make;
  };
  // Blocks; calls the request's done().
  void run(const Source& source, std::unique_ptr<Request> request);
  // Closes what nobody reads at this moment.
  void clear();

 private:
  class State;
  using Key = std::tuple<std::uint64_t, Bookmark>;
  Result<std::shared_ptr<State>> find(const Source& source);
  void close_idle(Deadline used_before);

  Environment& environment_;
  std::mutex mutex_;
  std::map<Key, std::shared_ptr<State>> states_;  // guarded by mutex_
};

}  // namespace offprint::database
