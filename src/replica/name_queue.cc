#include "replica/name_queue.h"

#include <utility>

namespace offprint::replica {

void NameQueue::post(const std::string& name, std::function<void()> work,
                     std::function<void()> done) {
  {
    std::lock_guard lock(mutex_);
    auto& items = waiting_[name];
    items.push_back({std::move(work), std::move(done)});
    if (items.size() > 1) return;
  }
  store_.post_blocking([this, name] { run(name); });
}

void NameQueue::run(const std::string& name) {
  for (bool more = true; more;) {
    Item item;
    {
      std::lock_guard lock(mutex_);
      item = std::move(waiting_.find(name)->second.front());
    }
    item.work();
    {
      std::lock_guard lock(mutex_);
      auto found = waiting_.find(name);
      found->second.pop_front();
      more = !found->second.empty();
      if (!more) waiting_.erase(found);
    }
    item.done();
  }
}

}  // namespace offprint::replica
