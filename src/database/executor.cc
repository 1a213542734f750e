#include "database/executor.h"

namespace offprint::database {
namespace {

constexpr auto kIdleThreadLife = std::chrono::seconds(10);

}  // namespace

ThreadPool::~ThreadPool() {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  work_or_stop_.notify_all();
  thread_rests_.wait(lock, [this] { return threads_ == 0; });
}

void ThreadPool::drain() {
  std::unique_lock lock(mutex_);
  thread_rests_.wait(lock, [this] { return work_.empty() && threads_ == idle_; });
}

void ThreadPool::post(std::function<void()> work) {
  std::lock_guard lock(mutex_);
  work_.push_back(std::move(work));
  if (idle_ >= static_cast<int>(work_.size()) || threads_ == threads_max_) {
    work_or_stop_.notify_one();
    return;
  }
  ++threads_;
  std::thread([this] { run(); }).detach();
}

bool ThreadPool::has_waiting() {
  std::lock_guard lock(mutex_);
  return !work_.empty();
}

void ThreadPool::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (work_.empty()) {
      if (stopping_) break;
      ++idle_;
      thread_rests_.notify_all();
      bool woken = work_or_stop_.wait_for(lock, kIdleThreadLife,
                                          [this] { return stopping_ || !work_.empty(); });
      --idle_;
      if (!woken) break;
      continue;
    }
    auto work = std::move(work_.front());
    work_.pop_front();
    lock.unlock();
    work();
    work = nullptr;
    lock.lock();
  }
  --threads_;
  thread_rests_.notify_all();
}

void FairPool::post(std::uint64_t owner, std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    Owner& its = owners_[owner];
    if (its.at_work == at_once_max_) return its.waiting.push_back(std::move(work));
    ++its.at_work;
  }
  post_to_pool(owner, std::move(work));
}

void FairPool::post_to_pool(std::uint64_t owner, std::function<void()> work) {
  pool_.post([this, owner, work = std::move(work)]() mutable {
    work();
    work = nullptr;
    note_done(owner);
  });
}

void FairPool::note_done(std::uint64_t owner) {
  std::function<void()> next;
  {
    std::lock_guard lock(mutex_);
    auto its = owners_.find(owner);
    if (its->second.waiting.empty()) {
      if (--its->second.at_work == 0) owners_.erase(its);
      return;
    }
    next = std::move(its->second.waiting.front());
    its->second.waiting.pop_front();
  }
  post_to_pool(owner, std::move(next));  // behind others' work
}

void Timers::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  calls_.clear();
}

void Timers::at(Deadline when, std::function<void()> call) {
  std::lock_guard lock(mutex_);
  if (stopping_) return;
  bool is_next = calls_.empty() || when < calls_.begin()->first;
  calls_.emplace(when, std::move(call));
  if (!thread_.joinable()) {
    thread_ = std::thread([this] { run(); });
  } else if (is_next) {
    changed_.notify_all();
  }
}

void Timers::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (calls_.empty()) {
      changed_.wait(lock);
    } else if (Deadline next = calls_.begin()->first; next > SteadyClock::now()) {
      changed_.wait_until(lock, next);
    } else {
      auto call = std::move(calls_.extract(calls_.begin()).mapped());
      lock.unlock();
      call();
      call = nullptr;
      lock.lock();
    }
  }
}

}  // namespace offprint::database
