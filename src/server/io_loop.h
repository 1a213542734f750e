#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include "base/clock.h"

namespace offprint::server {

class Connection;

// Something that another thread finished and a loop goes on with.
class Completion {
 public:
  virtual ~Completion() = default;
  // On the loop's thread, soon after IoLoop::complete(). May come more often than asked for.
  virtual void on_completion() = 0;
};

// What one loop has done so far. Written by its thread, read by any.
struct LoopCounters {
  std::atomic<std::uint64_t> requests{0}, responses_4xx{0}, responses_5xx{0}, bytes_in{0},
      bytes_out{0}, accepted{0}, streams_open{0}, timeouts{0}, wakeups{0};
};

// One I/O thread: an io_context of its own, the connections that live on it, and the queue through
// which other threads hand back what they finished. The queue costs one wake-up however much is put
// into it meanwhile. Lifetime: shared by its connections, which writer threads may hold after the
// server is gone; after stop() what they complete is dropped.
class IoLoop : public std::enable_shared_from_this<IoLoop> {
 public:
  using Executor = boost::asio::io_context::executor_type;

  IoLoop();
  ~IoLoop();

  void start();
  // Ends the thread; connections are to be closed before. Idempotent.
  void stop();

  boost::asio::io_context& context() { return context_; }
  Executor executor() { return context_.get_executor(); }
  // The caller is this loop's thread.
  bool is_current() const;
  // The caller is a thread of some loop: it must not wait.
  static bool is_io_thread();
  // Thread: any.
  void complete(std::shared_ptr<Completion> completion);

  // A connection is on its way to this loop: it counts from now on. Thread: any.
  void expect_connection() { connection_count_.fetch_add(1, std::memory_order_relaxed); }
  // Thread: this loop's. Each added connection was expected.
  void add(Connection& connection);
  void remove(Connection& connection);
  const std::vector<Connection*>& connections() const { return connections_; }
  // Those expected, and not removed again. Thread: any.
  std::size_t connection_count() const { return connection_count_.load(std::memory_order_relaxed); }

  // Closes connections that were idle since then, lets others finish their request. Thread: this
  // loop's.
  void close_connections(Deadline idle_since);
  // Cuts all. Thread: this loop's.
  void abort_connections();

  LoopCounters& counters() { return counters_; }
  // "Sun, 06 Nov 1994 08:49:37 GMT", at most a second old. Thread: this loop's.
  const std::string& date();

 private:
  std::vector<std::shared_ptr<Connection>> all_connections() const;
  void drain();
  void tick();
  void give_memory_back();

  boost::asio::io_context context_{1};
  boost::asio::executor_work_guard<Executor> work_{context_.get_executor()};
  boost::asio::steady_timer ticker_{context_};
  bool ticking_ = false;
  std::vector<Connection*> connections_;
  std::size_t connections_peak_ = 0;  // since memory was given back
  std::atomic<std::size_t> connection_count_{0};
  std::vector<std::shared_ptr<Completion>> draining_;
  LoopCounters counters_;
  std::string date_;
  std::int64_t date_s_ = 0;

  std::mutex mutex_;
  std::vector<std::shared_ptr<Completion>> completed_;  // guarded by mutex_
  bool draining_is_posted_ = false;                     // guarded by mutex_
  bool stopped_ = false;                                // guarded by mutex_

  std::thread thread_;
};

}  // namespace offprint::server
