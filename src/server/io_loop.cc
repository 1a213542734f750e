#include "server/io_loop.h"

#include <malloc.h>

#include <algorithm>
#include <ctime>

#include <boost/asio/post.hpp>

#include "base/assert.h"
#include "base/log.h"
#include "server/connection.h"

namespace offprint::server {
namespace {

thread_local const IoLoop* current_loop = nullptr;

constexpr std::size_t kTrimAfter = 512;  // connections that went

}  // namespace

IoLoop::IoLoop() = default;

IoLoop::~IoLoop() {
  stop();
  OFFPRINT_ASSERT(connections_.empty());
}

void IoLoop::start() {
  thread_ = std::thread([this] {
    current_loop = this;
    for (;;) {
      try {
        context_.run();
        return;
      } catch (const std::exception& error) {
        // Out of memory in a handler: the connection it belonged to is lost, the others go on.
        log::error("I/O loop: {}", error.what());
      }
    }
  });
}

void IoLoop::stop() {
  std::vector<std::shared_ptr<Completion>> dropped;
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    dropped.swap(completed_);
  }
  work_.reset();
  context_.stop();
  if (thread_.joinable()) thread_.join();
}

bool IoLoop::is_current() const { return current_loop == this; }
bool IoLoop::is_io_thread() { return current_loop != nullptr; }

void IoLoop::complete(std::shared_ptr<Completion> completion) {
  std::lock_guard lock(mutex_);
  if (stopped_) return;
  completed_.push_back(std::move(completion));
  if (draining_is_posted_) return;
  draining_is_posted_ = true;
  boost::asio::post(context_, [this] { drain(); });
}

void IoLoop::drain() {
  counters_.wakeups.fetch_add(1, std::memory_order_relaxed);
  // A few rounds without a further wake-up, then a pause for the sockets.
  for (int round = 0; round < 4; ++round) {
    {
      std::lock_guard lock(mutex_);
      if (completed_.empty()) {
        draining_is_posted_ = false;
        return;
      }
      draining_.swap(completed_);
    }
    for (auto& completion : draining_) completion->on_completion();
    draining_.clear();
  }
  boost::asio::post(context_, [this] { drain(); });
}

void IoLoop::add(Connection& connection) {
  connection.set_loop_index(connections_.size());
  connections_.push_back(&connection);
  connections_peak_ = std::max(connections_peak_, connections_.size());
  if (!ticking_) {
    ticking_ = true;
    tick();
  }
}

void IoLoop::remove(Connection& connection) {
  std::size_t index = connection.loop_index();
  OFFPRINT_ASSERT(index < connections_.size() && connections_[index] == &connection);
  connections_[index] = connections_.back();
  connections_[index]->set_loop_index(index);
  connections_.pop_back();
  connection_count_.fetch_sub(1, std::memory_order_relaxed);
}

// Once a second while there are connections: an idle server has no timer.
void IoLoop::tick() {
  if (connections_.empty()) {
    ticking_ = false;
    return;
  }
  ticker_.expires_after(std::chrono::seconds(1));
  ticker_.async_wait([this](const boost::system::error_code& error) {
    if (error) return;
    Deadline now = SteadyClock::now();
    for (const auto& connection : all_connections()) connection->tick(now);
    give_memory_back();
    tick();
  });
}

// What a crowd used lies scattered in the heap when most of it has gone: free() alone keeps it.
void IoLoop::give_memory_back() {
  if (connections_peak_ < kTrimAfter + 2 * connections_.size()) return;
  connections_peak_ = connections_.size();
  ::malloc_trim(0);
}

std::vector<std::shared_ptr<Connection>> IoLoop::all_connections() const {
  std::vector<std::shared_ptr<Connection>> all;
  all.reserve(connections_.size());
  for (Connection* connection : connections_) all.push_back(connection->shared());
  return all;
}

void IoLoop::close_connections(Deadline idle_since) {
  for (const auto& connection : all_connections()) connection->stop_when_idle(idle_since);
}

void IoLoop::abort_connections() {
  for (const auto& connection : all_connections()) connection->abort();
}

const std::string& IoLoop::date() {
  timespec now;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  if (now.tv_sec != date_s_) {
    date_s_ = now.tv_sec;
    std::tm parts;
    gmtime_r(&now.tv_sec, &parts);
    char text[64];
    date_.assign(text, std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts));
  }
  return date_;
}

}  // namespace offprint::server
