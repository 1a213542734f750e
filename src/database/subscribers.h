#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "database/store.h"

namespace offprint::database {

// Who wants to be called when something happens. Thread: any.
template <class... Arguments>
class Subscribers {
 public:
  using Call = std::function<void(Arguments...)>;

  // As long as the subscription lives, also after this object.
  std::unique_ptr<Subscription> add(Call call) {
    std::lock_guard lock(state_->mutex);
    std::uint64_t id = state_->next++;
    state_->calls.emplace_back(id, std::make_shared<Call>(std::move(call)));
    return std::make_unique<Kept>(state_, id);
  }

  // Calls all of them, on this thread and with no lock held.
  void call(const Arguments&... arguments) {
    std::unique_lock lock(state_->mutex);
    if (state_->calls.empty()) return;
    auto calls = state_->calls;
    ++state_->calling;
    lock.unlock();
    for (const auto& [id, one] : calls) (*one)(arguments...);
    lock.lock();
    --state_->calling;
    state_->called.notify_all();
  }

  std::size_t count() const {
    std::lock_guard lock(state_->mutex);
    return state_->calls.size();
  }

 private:
  struct State {
    std::mutex mutex;
    // State below is protected by mutex.
    std::vector<std::pair<std::uint64_t, std::shared_ptr<Call>>> calls;
    std::uint64_t next = 1;
    int calling = 0;
    std::condition_variable called;
  };

  class Kept final : public Subscription {
   public:
    Kept(std::shared_ptr<State> state, std::uint64_t id) : state_(std::move(state)), id_(id) {}
    ~Kept() override {
      std::unique_lock lock(state_->mutex);
      std::erase_if(state_->calls, [this](const auto& call) { return call.first == id_; });
      state_->called.wait(lock, [this] { return state_->calling == 0; });
    }

   private:
    const std::shared_ptr<State> state_;
    const std::uint64_t id_;
  };

  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace offprint::database
