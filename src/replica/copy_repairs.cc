#include "replica/copy_repairs.h"

#include <algorithm>
#include <optional>

#include "base/log.h"

namespace offprint::replica {

using database::DatabaseName;

void CopyRepairs::start() {
  thread_ = std::thread([this] { run(); });
}

void CopyRepairs::stop() {
  {
    std::lock_guard lock(mutex_);
    stop_.store(true);
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void CopyRepairs::add(const DatabaseName& name) {
  std::lock_guard lock(mutex_);
  if (!names_.insert(name.text()).second) return;
  queue_.push_back({name});
  changed_.notify_all();
}

std::set<std::string> CopyRepairs::names() const {
  std::lock_guard lock(mutex_);
  return names_;
}

bool CopyRepairs::contains(const std::string& name) const {
  std::lock_guard lock(mutex_);
  return names_.contains(name);
}

void CopyRepairs::run() {
  for (;;) {
    std::optional<DatabaseName> name;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stop_.load() || !queue_.empty(); });
      if (stop_.load()) return;
      name = queue_.front().name;
    }
    bool done = repair(*name);
    std::unique_lock lock(mutex_);
    queue_.pop_front();
    if (!done) {
      queue_.push_back({*name, true});
      changed_.wait_for(lock, std::chrono::milliseconds(retry_ms_),
                        [this] { return stop_.load(); });
      continue;
    }
    names_.erase(name->text());
    done_count_.fetch_add(1, std::memory_order_relaxed);
    // Those that failed may fail for ever: the others are followed meanwhile.
    bool all_tried = std::ranges::all_of(queue_, &Waiting::has_failed);
    lock.unlock();
    if (all_tried) all_done_();
  }
}

bool CopyRepairs::repair(const DatabaseName& name) {
  CopyFetchOptions fetch = options_;
  Result<> fetched = fetch_copy(fetch, store_, name, stop_);
  bool does_not_fit = !fetched && (fetched.error().code() == Code::kCorrupt ||
                                   fetched.error().code() == Code::kInvalid);
  if (does_not_fit) {
    fetch.whole = true;
    fetched = fetch_copy(fetch, store_, name, stop_);
  }
  if (!fetched && fetched.error().code() == Code::kNotFound) {
    fetched = store_.drop(name);
    if (!fetched && fetched.error().code() == Code::kNotFound) fetched = {};
  }
  if (!fetched && !stop_.load())
    log::warn("database '{}' cannot be fetched: {}", name.text(), fetched.error().message());
  return fetched.has_value();
}

}  // namespace offprint::replica
