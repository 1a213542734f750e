#pragma once

#include <cstddef>
#include <mutex>

namespace offprint::server {

// Bounds what waits for another node: how many requests, and what they keep in memory; a large one
// may wait alone. Thread: any.
class WaitingLimit {
 public:
  // False: too much waits already. Else leave() follows.
  bool enter(std::size_t size_bytes) {
    std::lock_guard lock(mutex_);
    if (count_ >= kCountMax || (count_ > 0 && bytes_ + size_bytes > kBytesMax)) return false;
    ++count_;
    bytes_ += size_bytes;
    return true;
  }
  void leave(std::size_t size_bytes) {
    std::lock_guard lock(mutex_);
    --count_;
    bytes_ -= size_bytes;
  }

 private:
  static constexpr std::size_t kCountMax = 20'000, kBytesMax = 64 << 20;
  std::mutex mutex_;
  std::size_t count_ = 0, bytes_ = 0;  // guarded by mutex_
};

}  // namespace offprint::server
