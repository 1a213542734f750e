#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "database/executor.h"
#include "ltx/types.h"

namespace offprint::server {

// Work that takes long, with threads of its own, so that it keeps nobody else waiting. It can be
// looked at and cancelled: docs/protocol/http.md, "Jobs". Thread: any.
class Jobs {
 public:
  struct Status {
    enum class State { kWaiting, kRunning, kDone, kFailed, kCancelled };
    std::string id;        // 32 hexadecimal digits, not to be guessed
    std::string kind;      // "import"
    std::string database;  // its name
    State state = State::kWaiting;
    std::uint64_t bytes_done = 0;
    std::uint64_t bytes_total = 0;
    std::uint64_t statements = 0;
    std::uint64_t rows = 0;
    std::uint64_t broken_references = 0;
    std::string bookmark;        // of a job that is done
    std::optional<Error> error;  // of one that failed or was cancelled
    std::int64_t started_at_ms = 0;
  };
  // One job's side of it.
  class Job {
   public:
    explicit Job(Status status) : status_(std::move(status)) {}
    Status status() const;
    // False: it was cancelled.
    bool update(const std::function<void(Status&)>& change);
    void cancel() { cancelled_ = true; }
    bool cancelled() const { return cancelled_; }

   private:
    mutable std::mutex mutex_;
    Status status_;  // guarded by mutex_
    std::atomic<bool> cancelled_{false};
  };
  // Does the work, telling its progress through Job::update(); its error becomes the job's.
  using Work = std::function<Result<>(Job&)>;
  // Called once when the job has ended, on its thread; may be empty.
  using Ended = std::function<void(const Status&)>;

  Jobs() = default;
  ~Jobs() { stop(); }
  Jobs(const Jobs&) = delete;
  Jobs& operator=(const Jobs&) = delete;

  // The job's id. kBusy: too many wait already; `work` and `ended` are dropped then.
  Result<std::string> start(Status about, Work work, Ended ended);
  // Those that wait or run, and the last ones that ended; newest first.
  std::vector<Status> list();
  std::optional<Status> find(const std::string& id);
  // Asks it to end; it may take a moment, and may be done all the same. False: no such job.
  bool cancel(const std::string& id);
  // Cancels all, waits for their end, takes no more.
  void stop();

 private:
  static constexpr int kRunningMax = 4;
  static constexpr std::size_t kWaitingMax = 100;
  static constexpr std::size_t kKeptMax = 200;  // ended ones

  static void run(Job& job, const Work& work, const Ended& ended);

  std::mutex mutex_;
  std::deque<std::shared_ptr<Job>> jobs_;  // newest first; guarded by mutex_
  bool stopping_ = false;                  // guarded by mutex_
  database::ThreadPool threads_{kRunningMax};
};

// A job as JSON, without an end of line.
std::string job_json(const Jobs::Status& status);

}  // namespace offprint::server
