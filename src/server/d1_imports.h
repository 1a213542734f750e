#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "server/http_message.h"

namespace offprint::server::d1 {

// What became of a script.
struct ImportResult {
  std::uint64_t queries = 0;
  std::int64_t changes = 0;
  double duration_ms = 0;
  std::string bookmark;  // the state that it left
};

// One upload and the import made of it. Thread: any.
class Import {
 public:
  enum class State { kUploaded, kRunning, kComplete, kFailed };
  struct Status {
    State state = State::kUploaded;
    std::uint64_t bytes_done = 0, bytes_total = 0, queries = 0;
    ImportResult result;         // kComplete
    std::optional<Error> error;  // kFailed: nothing of it happened
  };
  Import(std::uint64_t db, std::string tag, std::shared_ptr<BodyReceiver> file)
      : database(db), etag(std::move(tag)), upload(std::move(file)) {}

  const std::uint64_t database;
  const std::string etag;
  std::shared_ptr<BodyReceiver> upload;  // until finish(); whoever runs it and finish() use it
  std::string at_bookmark;               // of its start; written before it runs

  Status status() const;
  bool finished() const;
  void progress(std::uint64_t bytes_done, std::uint64_t bytes_total, std::uint64_t queries);
  // `client` is woken when the import has finished.
  void tell(std::shared_ptr<Client> client);

 private:
  friend class Imports;
  void begin();
  void finish(Result<ImportResult> result);

  mutable std::mutex mutex_;
  Status status_;                                 // guarded by mutex_
  std::vector<std::shared_ptr<Client>> waiting_;  // guarded by mutex_
  Deadline touched_ = SteadyClock::now();         // guarded by Imports::mutex_
};

// The imports of a node: uploads that wait for their import, running ones, and finished ones for as
// long as somebody may ask. Who runs them is another's business (server/jobs.h). Thread: any.
class Imports {
 public:
  static constexpr std::size_t kKeptMax = 100;  // uploads, running and finished ones together
  static constexpr std::chrono::hours kKeptFor{1};

  // A complete upload. It replaces an earlier one of the same database and etag that waits. kBusy:
  // too many are kept.
  Result<> add(std::shared_ptr<Import> import);
  // The newest one with this etag that waits or runs.
  std::shared_ptr<Import> unfinished(std::uint64_t database, std::string_view etag);
  // The newest one that began at this bookmark.
  std::shared_ptr<Import> begun_at(std::uint64_t database, std::string_view bookmark);
  // Marks it as running; then it is the caller's to run, and to tell finish(). False: it was begun
  // before. `bookmark` is where the database stands. kBusy: another import of this database runs.
  Result<bool> begin(const std::shared_ptr<Import>& import, const std::string& bookmark);
  void finish(const std::shared_ptr<Import>& import, Result<ImportResult> result);

 private:
  void forget_old();

  std::mutex mutex_;
  std::list<std::shared_ptr<Import>> imports_;  // guarded by mutex_; oldest first
};

}  // namespace offprint::server::d1
