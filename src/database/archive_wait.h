#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "database/executor.h"
#include "database/request.h"
#include "database/store.h"

namespace offprint::database {

// A request that has run, and what became of it.
struct Answer {
  std::unique_ptr<Request> request;
  Outcome outcome;
};

void give(std::vector<Answer>& answers);

// Holds answers back until the archive has what they are about, where that is wanted
// (DatabaseLimits::durability). The transactions themselves stand whatever comes. Thread: any.
class AnswersInWaiting {
 public:
  explicit AnswersInWaiting(Timers& timers) : timers_(timers) {}

  void set(ArchiveWait wait);
  // Whether answers of such a database wait.
  bool is_wanted(DatabaseLimits::Durability durability);
  // Calls `reached` once, on any thread: the archive has the database's transaction `at`, or
  // kUnknown.
  using Reached = std::function<void(const Result<>&)>;
  void when_there(const std::string& name, const Bookmark& at, Reached reached);
  // The same, for answers, and for who blocks until then.
  void hold(const std::string& name, const Bookmark& at, std::vector<Answer> answers);
  Result<> wait(const std::string& name, const Bookmark& at);

 private:
  Timers& timers_;
  std::mutex mutex_;
  ArchiveWait wait_;  // guarded by mutex_
};

}  // namespace offprint::database
