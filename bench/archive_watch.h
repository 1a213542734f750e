#pragma once

#include <cstdint>
#include <string>

#include "bench/floors.h"

namespace offprint::bench {

// When objects appear in a folder with the newest transactions of an archive (`ltx/0` of
// Litestream's layout). Thread: one.
class ArchiveWatch {
 public:
  // Waits until the folder is there.
  explicit ArchiveWatch(const std::string& folder);
  ~ArchiveWatch();
  ArchiveWatch(const ArchiveWatch&) = delete;
  ArchiveWatch& operator=(const ArchiveWatch&) = delete;

  // The last transaction that an object has so far, as the folder says.
  std::uint64_t newest() const { return newest_; }
  // Takes what came until now.
  void drain();
  // Waits for an object with a later transaction than `txid`: when it was there. None within 60
  // seconds ends the benchmark.
  Clock::time_point wait_beyond(std::uint64_t txid);

 private:
  bool take_events(int timeout_ms);

  const std::string folder_;
  int events_ = -1;
  std::uint64_t newest_ = 0;
};

}  // namespace offprint::bench
