#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/clock.h"

namespace offprint::database {

// A bounded pool of threads, started when there is work for them and ended after some idle seconds.
class ThreadPool {
 public:
  explicit ThreadPool(int threads_max) : threads_max_(threads_max) {}
  // Waits for all work, posted by work too.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  void post(std::function<void()> work);
  // Waits until there is nothing to do. Not from a thread of the pool.
  void drain();
  // Work waits for a thread: who has more to do should let others go first.
  bool has_waiting();

 private:
  void run();

  const int threads_max_;
  std::mutex mutex_;
  std::condition_variable work_or_stop_;
  std::condition_variable thread_rests_;  // it ended, or waits for work
  std::deque<std::function<void()>> work_;
  int threads_ = 0;
  int idle_ = 0;
  bool stopping_ = false;
};

// A pool of threads for work that takes long: one owner (a database, by its number) has half of
// them at most, so that nobody keeps all others waiting.
class FairPool {
 public:
  explicit FairPool(int threads_max)
      : at_once_max_(threads_max > 1 ? threads_max / 2 : 1), pool_(threads_max) {}

  void post(std::uint64_t owner, std::function<void()> work);
  // As ThreadPool::drain().
  void drain() { pool_.drain(); }

 private:
  struct Owner {
    int at_work = 0;  // what the pool has of it
    std::deque<std::function<void()>> waiting;
  };
  void post_to_pool(std::uint64_t owner, std::function<void()> work);
  void note_done(std::uint64_t owner);

  const int at_once_max_;
  std::mutex mutex_;
  std::unordered_map<std::uint64_t, Owner> owners_;  // guarded by mutex_; those that have work
  ThreadPool pool_;                                  // ends first: its work uses the others
};

// Calls functions at given times on one thread, which sleeps until the next of them. Functions must
// be quick.
class Timers {
 public:
  Timers() = default;
  ~Timers() { stop(); }
  Timers(const Timers&) = delete;
  Timers& operator=(const Timers&) = delete;

  void at(Deadline when, std::function<void()> call);
  // Nothing is called any more; what was not called is dropped.
  void stop();

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::multimap<Deadline, std::function<void()>> calls_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace offprint::database
