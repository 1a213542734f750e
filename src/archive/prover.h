#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "archive/limited_store.h"
#include "archive/verify.h"
#include "base/file_system.h"
#include "database/store.h"

namespace offprint::archive {

struct ProverOptions {
  std::chrono::milliseconds every = std::chrono::days(7);  // each archive is proven so often
  std::uint64_t bytes_per_second = 4 << 20;                // read from the archive at most
  std::string scratch;  // a folder of its own, emptied at the start; space for the largest database
  std::string file;     // where it keeps what it has proven; empty: nowhere
  std::function<std::int64_t()> wall_clock_ms = unix_time_ms;
  FileSystem* files = &FileSystem::real();
};

// Proves the archives of a node in the background, one after the other, the least recently proven
// first, and has what is damaged repaired. Thread: any; start and stop once each.
class Prover {
 public:
  struct Status {
    std::uint64_t proofs = 0, damages = 0, repairs = 0;  // damages: objects and moments
    std::int64_t oldest_ms = 0;  // ago: the proof of the archive that waits longest for another
    std::size_t unproven = 0;    // never proven, or damaged
  };
  // Puts right what was found in a database's archive, and says what it did.
  using Repair = std::function<Result<std::vector<std::string>>(
      const std::string& name, const std::vector<std::string>& damaged_keys)>;

  // `objects` and `store` must outlive it.
  Prover(ObjectStore& objects, database::Store& store, Repair repair, ProverOptions options);
  ~Prover();
  Prover(const Prover&) = delete;
  Prover& operator=(const Prover&) = delete;

  Result<> start();
  // What runs ends soon.
  void cancel();
  void stop();
  Status status() const;

 private:
  struct Proof {
    std::int64_t known_ms = 0;   // since when there is something to prove
    std::int64_t proven_ms = 0;  // 0: never
    std::int64_t tried_ms = 0;
  };

  void run();
  std::optional<std::string> next(std::int64_t now_ms, std::int64_t& due_ms);
  void prove(const std::string& name);
  void look_at_databases(std::int64_t now_ms);
  void report(const std::string& name, const Verified& verified);
  Result<> load();
  void save();

  database::Store& store_;
  const Repair repair_;
  const ProverOptions options_;
  LimitedStore objects_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::map<std::string, Proof> proofs_;
  Status status_;
};

}  // namespace offprint::archive
