#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cluster/coordinator.h"

// etcd's v3 JSON gateway: requests as texts, answers read. 64-bit numbers are strings there, keys
// and values base64. What cannot be read is kCorrupt.
namespace offprint::cluster {

inline constexpr const char* kEtcdRange = "/v3/kv/range";
inline constexpr const char* kEtcdPut = "/v3/kv/put";
inline constexpr const char* kEtcdTxn = "/v3/kv/txn";
inline constexpr const char* kEtcdWatch = "/v3/watch";
inline constexpr const char* kEtcdLeaseGrant = "/v3/lease/grant";
inline constexpr const char* kEtcdLeaseKeepAlive = "/v3/lease/keepalive";
inline constexpr const char* kEtcdAuthenticate = "/v3/auth/authenticate";

// Stands in every answer.
struct EtcdHeader {
  std::uint64_t cluster_id = 0;
  std::int64_t revision = 0;
};

struct EtcdEntry {
  RegisterEntry entry;
  std::int64_t lease = 0;
};

struct EtcdRange {
  EtcdHeader header;
  std::vector<EtcdEntry> entries;  // sorted by key
};

struct EtcdTxn {
  EtcdHeader header;
  bool succeeded = false;
  std::optional<RegisterEntry> current;  // when it did not succeed
};

// One line of a watch.
struct EtcdWatchLine {
  bool created = false;
  std::optional<std::string> ended;  // why
  std::vector<RegisterHint> hints;
};

// What an answer that is no success says.
struct EtcdFailure {
  int grpc_code = 2;  // 2: unknown
  std::string message;
  bool is_from_etcd = false;  // it speaks of itself, not of something between us

  // The request did not happen and never will.
  bool is_definite() const;
  // A new token is needed.
  bool is_stale_token() const;
  Error error() const;
};

std::string etcd_range_request(const std::string& key);
std::string etcd_prefix_request(const std::string& prefix);
std::string etcd_swap_request(const Swap& swap);
std::string etcd_put_request(const std::string& key, const std::string& value, std::int64_t lease);
std::string etcd_watch_request(const std::string& prefix);
std::string etcd_grant_request(std::int64_t ttl_seconds);
std::string etcd_keep_alive_request(std::int64_t lease);
std::string etcd_authenticate_request(const std::string& user, const std::string& password);

Result<EtcdRange> parse_etcd_range(std::string_view body);
Result<EtcdTxn> parse_etcd_txn(std::string_view body, const std::string& key);
Result<EtcdHeader> parse_etcd_put(std::string_view body);
Result<std::int64_t> parse_etcd_grant(std::string_view body);
// Seconds that are left, 0: the lease is lost.
Result<std::int64_t> parse_etcd_keep_alive(std::string_view body);
Result<std::string> parse_etcd_token(std::string_view body);
Result<EtcdWatchLine> parse_etcd_watch(std::string_view line);
EtcdFailure parse_etcd_failure(int status, std::string_view body);

}  // namespace offprint::cluster
