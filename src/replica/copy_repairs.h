#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "database/store.h"
#include "replica/copy_fetch.h"

namespace offprint::replica {

// Copies that are to be compared with their primary's, page by page, one after the other on a
// thread of its own; what fails is tried again. Thread: any; start and stop once each.
class CopyRepairs {
 public:
  // `all_done` is called (on its thread, must be quick) when each of those that are left was tried
  // in vain, or none is.
  CopyRepairs(CopyFetchOptions options, int retry_ms, database::Store& store,
              std::function<void()> all_done)
      : options_(std::move(options)),
        retry_ms_(retry_ms),
        store_(store),
        all_done_(std::move(all_done)) {}
  ~CopyRepairs() { stop(); }

  void start();
  void stop();
  // Once, however often it is asked for before it is done.
  void add(const database::DatabaseName& name);
  // Those that wait or are at work.
  std::set<std::string> names() const;
  bool contains(const std::string& name) const;
  std::uint64_t done_count() const { return done_count_.load(std::memory_order_relaxed); }

 private:
  void run();
  bool repair(const database::DatabaseName& name);

  const CopyFetchOptions options_;
  const int retry_ms_;
  database::Store& store_;
  const std::function<void()> all_done_;
  std::atomic<bool> stop_{false};
  std::atomic<std::uint64_t> done_count_{0};
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  struct Waiting {
    database::DatabaseName name;
    bool has_failed = false;
  };
  std::deque<Waiting> queue_;    // guarded by mutex_; the first is at work
  std::set<std::string> names_;  // guarded by mutex_; those in queue_
  std::thread thread_;
};

}  // namespace offprint::replica
