#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace offprint::cluster {

// One key of the register. `version` grows with every change of the whole register and is never
// used twice; it is at least 1.
struct RegisterEntry {
  std::string key;
  std::string value;
  std::int64_t version = 0;
  bool operator==(const RegisterEntry&) const = default;
};

struct Swap {
  std::string key;
  std::int64_t expected_version = 0;  // 0: the key must be absent
  std::string value;
};

struct SwapResult {
  enum class Outcome {
    kApplied,  // `version` is the new one
    kRefused,  // the version was another: `current`, empty when the key is absent
    kFailed,   // it did not happen and never will: `error`
    kUnknown,  // it may have happened, or may still happen later: `error`
  };
  Outcome outcome = Outcome::kFailed;
  std::int64_t version = 0;
  std::optional<RegisterEntry> current;
  std::optional<Error> error;

  static SwapResult applied(std::int64_t version) {
    return {Outcome::kApplied, version, std::nullopt, std::nullopt};
  }
  static SwapResult refused(std::optional<RegisterEntry> current) {
    return {Outcome::kRefused, 0, std::move(current), std::nullopt};
  }
  static SwapResult failed(Error error) {
    return {Outcome::kFailed, 0, std::nullopt, std::move(error)};
  }
  static SwapResult unknown(Error error) {
    return {Outcome::kUnknown, 0, std::nullopt, std::move(error)};
  }
};

// "This key was changed": to this value, or removed. A hint: late, lossy, repeated and out of date
// as it likes. Never decide by it; read() first.
struct RegisterHint {
  std::string key;
  std::optional<std::string> value;  // nothing: the key was removed
  std::int64_t version = 0;          // of the change
};

// That this node lives. The key goes away some time after the node stopped to renew it, or, by a
// fault of the service, while the node lives: a hint, never a proof.
struct Announcement {
  std::string key;
  std::string value;
  int ttl_ms = 3000;
};

// Limits of what is kept: a register of few tiny records, no database.
inline constexpr std::size_t kRegisterKeyMax = 512;
inline constexpr std::size_t kRegisterValueMax = 64 << 10;

// A linearizable compare-and-swap register over few tiny keys: the one thing that a cluster asks of
// the outside. Nothing here decides by time: leases and watches are hints.
// Thread: any. Each call returns at once and calls `done` exactly once, on a thread of the
// coordinator, with no lock held; `done` must be quick and may call the coordinator again, but not
// destroy it.
// Deadlines: `done` is called soon after the deadline at the latest.
// Lifetime: the destructor ends what is under way (reads with kUnavailable, a swap that may have
// been sent with kUnknown) and waits for the callbacks to return. A call made while it runs fails
// with kUnavailable: do not repeat such a call.
// Errors of reads: kUnavailable none answered, kTimeout, kUnauthorized and kForbidden the service
// refuses us, kInvalid too long a key or value, kCorrupt an answer that cannot be or a register
// that was wiped or set back: then every later call fails too.
class Coordinator {
 public:
  using ReadDone = std::function<void(Result<std::optional<RegisterEntry>>)>;
  using ListDone = std::function<void(Result<std::vector<RegisterEntry>>)>;
  using SwapDone = std::function<void(SwapResult)>;
  using AnnounceDone = std::function<void(Result<>)>;
  using WatchCall = std::function<void(const RegisterHint&)>;

  virtual ~Coordinator() = default;

  // Linearizable: sees every swap that was applied before the call. Nothing for an absent key.
  virtual void read(std::string key, Deadline deadline, ReadDone done) = 0;
  // The same for all keys that start with `prefix`, of one moment, sorted.
  virtual void list(std::string prefix, Deadline deadline, ListDone done) = 0;
  // Never sent twice. After kUnknown it may land at any time, until a newer version was read.
  virtual void compare_and_swap(Swap swap, Deadline deadline, SwapDone done) = 0;
  // `call` for changes of the keys that start with `prefix`, until the coordinator ends; first for
  // those that are there. `call` runs on the coordinator's thread.
  virtual void watch(std::string prefix, WatchCall call) = 0;
  // Keeps the key there from now on, also when the service forgets it; a later call for the same
  // key changes its value. All of one coordinator hang on one lease, whose time the first call
  // gives. `done`: it stands, or does not yet at the deadline (trying goes on).
  virtual void announce(Announcement announcement, Deadline deadline, AnnounceDone done) = 0;
};

// kInvalid for a key or value that no register takes.
Result<> check_register_key(const std::string& key);
Result<> check_register_entry(const std::string& key, const std::string& value);

}  // namespace offprint::cluster
