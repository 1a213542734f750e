#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "database/store.h"

namespace offprint::server {

// Tokens that count no more, kept in the data directory's catalog. Thread: any.
class Revocations {
 public:
  // Reads what is kept. Blocks. `store` must outlive it.
  static Result<std::unique_ptr<Revocations>> load(database::Store& store);

  // Durable when it returns, and in effect; nothing when it was before. Blocks. kTooLarge: there
  // are too many.
  Result<> add(const database::Revocation& revocation);
  // Takes what the catalog has got meanwhile from another node of the cluster. Blocks.
  Result<> take_kept();  // one at a time
  std::vector<database::Revocation> list() const;
  // Those that came after `seen`, an answer of before (0: all), which becomes the newest's number.
  std::vector<database::Revocation> list_after(std::uint64_t& seen) const;

  // Nothing was ever revoked: the usual case, and cheap to ask.
  bool none() const { return none_.load(std::memory_order_acquire); }
  bool is_revoked(std::string_view token_id) const;
  // Tokens issued before this count for nothing on the database (pattern "*": on none). Seconds; 0:
  // all count.
  std::int64_t not_before_s(std::string_view database) const;
  std::int64_t not_before_everywhere_s() const { return not_before_s("*"); }

 private:
  explicit Revocations(database::Store& store) : store_(store) {}
  void apply(const database::Revocation& revocation);
  bool is_known(const database::Revocation& revocation) const;  // mutex_ held
  std::vector<database::Revocation> list_locked() const;        // mutex_ held

  database::Store& store_;
  std::optional<Bookmark> taken_;  // of the catalog, by take_kept()
  std::atomic<bool> none_{true};
  mutable std::mutex mutex_;
  std::map<std::string, std::int64_t, std::less<>> tokens_;      // jti → kept until; guarded
  std::map<std::string, std::int64_t, std::less<>> not_before_;  // by database; guarded
  std::deque<database::Revocation> newest_;                      // oldest first; guarded
  std::atomic<std::uint64_t> count_{0};  // ever applied; written under mutex_
};

}  // namespace offprint::server
