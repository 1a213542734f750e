#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "server/access.h"
#include "server/token_key.h"

namespace offprint::server {

class Revocations;

// Tokens in, what they allow out. Verified ones are remembered by their SHA-256 until they expire.
// Thread: any.
class Authenticator {
 public:
  struct Options {
    std::vector<VerifyingKey> keys;  // at least one
    std::string audience;            // tokens must be for it; empty: `aud` is not looked at
    std::size_t cached_max = 10'000;
  };
  // `revocations` may be null; else it must outlive this and every Access.
  Authenticator(Options options, const Revocations* revocations)
      : options_(std::move(options)), revocations_(revocations) {}

  // Of the value of an Authorization field. kUnauthorized: none ("TOKEN_MISSING"), or one that does
  // not count.
  Result<std::shared_ptr<const Access>> authenticate_field(std::string_view authorization);
  Result<std::shared_ptr<const Access>> authenticate(std::string_view token);

  std::size_t cached_count() const;
  // Requests that showed none, or one that does not count.
  std::uint64_t refused_count() const { return refused_.load(std::memory_order_relaxed); }

 private:
  using Digest = std::array<std::uint8_t, 32>;
  struct DigestHash {
    std::size_t operator()(const Digest& digest) const;
  };
  struct Entry {
    Digest digest;
    std::shared_ptr<const Access> access;
  };

  std::shared_ptr<const Access> find(const Digest& digest);
  void keep(const Digest& digest, std::shared_ptr<const Access> access);

  Result<std::shared_ptr<const Access>> look_up(std::string_view token);

  const Options options_;
  const Revocations* revocations_;
  std::atomic<std::uint64_t> refused_{0};
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // most recently used first; guarded by mutex_
  std::unordered_map<Digest, std::list<Entry>::iterator, DigestHash> by_digest_;  // guarded
};

// All keys of files. kInvalid with the file's name.
Result<std::vector<VerifyingKey>> load_verifying_keys(const std::vector<std::string>& paths);

}  // namespace offprint::server
