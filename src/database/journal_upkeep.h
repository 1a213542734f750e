#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "database/environment.h"
#include "database/hosted_database.h"

namespace offprint::database {

// Frees journal segments over the log's limits, on a helper thread; what still needs them is
// written again or checkpointed first. Thread: any.
class JournalUpkeep {
 public:
  // Who may need old records.
  struct Holders {
    std::vector<std::shared_ptr<HostedDatabase>> databases;
    journal::Lsn at_least;  // records from here on stay in any case
  };
  // `find_holders` is given the position from which on all stays anyway.
  JournalUpkeep(Environment& environment, std::function<Holders(journal::Lsn)> find_holders)
      : environment_(environment), find_holders_(std::move(find_holders)) {}

  // Once the journal is open.
  void start();
  void stop() { due_at_ = kNever; }
  // Store::hold_log.
  void hold(std::function<std::optional<journal::Lsn>()> needed_from);
  // Called after transactions; quick.
  void run_if_due();

 private:
  static constexpr std::uint64_t kNever = ~std::uint64_t{0};

  void free_segments();
  journal::Lsn held(journal::Lsn target, journal::Lsn end);
  journal::Lsn over_limits(const std::vector<journal::Segment>& segments);

  Environment& environment_;
  const std::function<Holders(journal::Lsn)> find_holders_;
  std::atomic<std::uint64_t> due_at_{kNever};               // journal position of the next run
  std::mutex mutex_;                                        // one run at a time
  std::function<std::optional<journal::Lsn>()> held_from_;  // by mutex_
  bool holds_too_much_ = false;                             // by mutex_
  std::map<std::uint64_t, std::int64_t> seen_ms_;  // segments, first seen, by begin; by mutex_
};

}  // namespace offprint::database
