#include "cluster/etcd_lease.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace offprint::cluster {
namespace {

using std::chrono::milliseconds;

constexpr int kRequestMinMs = 1000;
constexpr int kRetryMs = 200;
constexpr std::int64_t kSecondsMin = 2;  // what etcd grants at least, by its election time

}  // namespace

void EtcdLease::announce(Announcement announcement, Deadline deadline,
                         Coordinator::AnnounceDone done) {
  if (ttl_ms_ == 0) ttl_ms_ = std::max(announcement.ttl_ms, 1000);
  keys_[announcement.key] = announcement.value;
  Waiting waiting{++next_id_, announcement.key, std::move(done), {}};
  waiting.timer = loop_.at(deadline, [this, id = waiting.id] {
    auto it = std::find_if(waiting_.begin(), waiting_.end(),
                           [id](const Waiting& each) { return each.id == id; });
    if (it == waiting_.end()) return;
    auto late = std::move(it->done);
    waiting_.erase(it);
    late(fail(Code::kTimeout, "etcd did not take the announcement in time; trying goes on"));
  });
  waiting_.push_back(std::move(waiting));
  start_round();
}

void EtcdLease::end(const Error& error) {
  for (Waiting& each : std::exchange(waiting_, {})) each.done(fail(error));
}

void EtcdLease::answer(const std::string& key) {
  std::vector<Coordinator::AnnounceDone> calls;
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    if (it->key != key) {
      ++it;
      continue;
    }
    loop_.cancel(it->timer);
    calls.push_back(std::move(it->done));
    it = waiting_.erase(it);
  }
  for (auto& call : calls) call({});
}

void EtcdLease::request(const char* path, std::string body,
                        std::function<Result<>(std::string_view)> check,
                        std::function<void(EtcdReply)> done) {
  EtcdCall call;
  call.path = path;
  call.body = std::move(body);
  call.deadline = SteadyClock::now() + milliseconds(std::max(kRequestMinMs, ttl_ms_ / 2));
  call.check = std::move(check);
  session_.call(std::move(call), std::move(done));
}

void EtcdLease::start_round() {
  if (session_.has_ended()) return;
  if (in_round_) {
    again_ = true;
    return;
  }
  in_round_ = true;
  again_ = false;
  if (lease_ == 0) return grant();
  std::vector<std::string> missing;
  for (const auto& [key, value] : keys_) {
    auto it = standing_.find(key);
    if (it == standing_.end() || it->second != value) missing.push_back(key);
  }
  if (missing.empty()) return renew();
  put(std::move(missing));
}

void EtcdLease::end_round(bool worked) {
  in_round_ = false;
  if (again_) return start_round();
  int pause_ms = worked ? ttl_ms_ / 3 : std::min(kRetryMs, ttl_ms_ / 3);
  loop_.at(SteadyClock::now() + milliseconds(pause_ms), [this, round = ++timer_round_] {
    if (round == timer_round_) start_round();
  });
}

void EtcdLease::lose() {
  log::warn("etcd has lost this node's lease; announcing it anew");
  lease_ = 0;
  standing_.clear();
  again_ = true;
}

void EtcdLease::grant() {
  auto check = [](std::string_view body) -> Result<> {
    OFFPRINT_TRY(parse_etcd_grant(body));
    return {};
  };
  std::int64_t seconds = std::max<std::int64_t>(kSecondsMin, (ttl_ms_ + 999) / 1000);
  request(kEtcdLeaseGrant, etcd_grant_request(seconds), check, [this](const EtcdReply& reply) {
    if (reply.error) return end_round(false);
    lease_ = *parse_etcd_grant(reply.body);
    again_ = true;
    end_round(true);
  });
}

void EtcdLease::renew() {
  auto check = [](std::string_view body) -> Result<> {
    OFFPRINT_TRY(parse_etcd_keep_alive(body));
    return {};
  };
  request(kEtcdLeaseKeepAlive, etcd_keep_alive_request(lease_), check,
          [this](const EtcdReply& reply) {
            if (reply.error && reply.error->code() != Code::kNotFound) return end_round(false);
            if (reply.error || *parse_etcd_keep_alive(reply.body) <= 0) {
              lose();
              return end_round(true);
            }
            std::vector<std::string> keys;
            for (const auto& [key, value] : standing_) keys.push_back(key);
            look(std::move(keys));
          });
}

void EtcdLease::look(std::vector<std::string> keys) {
  if (keys.empty()) return end_round(true);
  std::string key = std::move(keys.back());
  keys.pop_back();
  auto check = [](std::string_view body) -> Result<> {
    OFFPRINT_TRY(parse_etcd_range(body));
    return {};
  };
  request(kEtcdRange, etcd_range_request(key), check,
          [this, key, keys = std::move(keys)](const EtcdReply& reply) {
            if (reply.error) return end_round(false);
            EtcdRange range = *parse_etcd_range(reply.body);
            bool stands = range.entries.size() == 1 && range.entries[0].lease == lease_ &&
                          range.entries[0].entry.value == standing_[key];
            if (!stands) {
              // The lease may be half gone: a new one is sure.
              lose();
              return end_round(true);
            }
            look(keys);
          });
}

void EtcdLease::put(std::vector<std::string> keys) {
  if (keys.empty()) return end_round(true);
  std::string key = std::move(keys.back());
  keys.pop_back();
  std::string value = keys_[key];
  auto check = [](std::string_view body) -> Result<> {
    OFFPRINT_TRY(parse_etcd_put(body));
    return {};
  };
  request(kEtcdPut, etcd_put_request(key, value, lease_), check,
          [this, key, value, keys = std::move(keys)](const EtcdReply& reply) {
            if (reply.error) {
              if (reply.error->code() == Code::kNotFound) lose();
              return end_round(false);
            }
            standing_[key] = value;
            if (keys_[key] == value) answer(key);
            put(keys);
          });
}

}  // namespace offprint::cluster
