#include "cluster/etcd_coordinator.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/file_system.h"
#include "base/log.h"
#include "cluster/etcd_lease.h"
#include "cluster/etcd_watch.h"

namespace offprint::cluster {
namespace {

using std::chrono::milliseconds;

Error stopped() { return {Code::kUnavailable, "the coordinator is stopping"}; }

class EtcdCoordinator final : public Coordinator {
 public:
  EtcdCoordinator(EtcdOptions options, std::unique_ptr<EtcdHttp> http)
      : options_(std::move(options)),
        http_(std::move(http)),
        loop_(*http_),
        session_(loop_, *http_, options_),
        lease_(loop_, session_) {}
  ~EtcdCoordinator() override;

  void read(std::string key, Deadline deadline, ReadDone done) override;
  void list(std::string prefix, Deadline deadline, ListDone done) override;
  void compare_and_swap(Swap swap, Deadline deadline, SwapDone done) override;
  void watch(std::string prefix, WatchCall call) override;
  void announce(Announcement announcement, Deadline deadline, AnnounceDone done) override;

 private:
  void list_entries(const std::string& request, Deadline deadline, ListDone done);
  void start_swap(const Swap& swap, Deadline deadline, SwapDone done);
  // Of an answer that is linearizable, to a request that began when `floor` was newest.
  Result<> check_header(const EtcdHeader& header, std::int64_t floor);

  const EtcdOptions options_;
  const std::unique_ptr<EtcdHttp> http_;
  CoordinatorLoop loop_;
  // Of the loop's thread, which touches them by tasks alone.
  EtcdSession session_;
  EtcdLease lease_;
  std::vector<std::unique_ptr<EtcdWatch>> watches_;
  std::uint64_t cluster_id_ = 0;
  std::int64_t newest_revision_ = 0;
};

EtcdCoordinator::~EtcdCoordinator() {
  loop_.stop([this] {
    session_.end(stopped());
    lease_.end(stopped());
  });
}

Result<> EtcdCoordinator::check_header(const EtcdHeader& header, std::int64_t floor) {
  if (cluster_id_ == 0) cluster_id_ = header.cluster_id;
  if (header.cluster_id != cluster_id_) {
    return fail(Code::kCorrupt, fmt::format("it belongs to another etcd cluster ({:x}, not {:x})",
                                            header.cluster_id, cluster_id_));
  }
  if (header.revision < floor) {
    Error error(Code::kCorrupt,
                fmt::format("the register went back from revision {} to {}: etcd was wiped or set "
                            "back to a backup; check the cluster and restart this node",
                            floor, header.revision));
    log::error("{}", error.message());
    // Later, because the session is in the middle of a call.
    loop_.post([this, error] {
      session_.end(error);
      lease_.end(error);
    });
    return fail(error);
  }
  newest_revision_ = std::max(newest_revision_, header.revision);
  return {};
}

void EtcdCoordinator::list_entries(const std::string& request, Deadline deadline, ListDone done) {
  auto range = std::make_shared<EtcdRange>();
  EtcdCall call;
  call.path = kEtcdRange;
  call.body = request;
  call.deadline = deadline;
  call.check = [this, range, floor = newest_revision_](std::string_view body) -> Result<> {
    OFFPRINT_TRY_ASSIGN(*range, parse_etcd_range(body));
    return check_header(range->header, floor);
  };
  session_.call(std::move(call), [range, done = std::move(done)](EtcdReply reply) {
    if (reply.error) return done(fail(std::move(*reply.error)));
    std::vector<RegisterEntry> entries;
    for (EtcdEntry& each : range->entries) entries.push_back(std::move(each.entry));
    done(std::move(entries));
  });
}

void EtcdCoordinator::read(std::string key, Deadline deadline, ReadDone done) {
  loop_.post([this, key = std::move(key), deadline, done = std::move(done)] {
    if (auto valid = check_register_key(key); !valid) return done(fail(valid.error()));
    list_entries(etcd_range_request(key), deadline,
                 [key, done](Result<std::vector<RegisterEntry>> entries) {
                   if (!entries) return done(fail(entries.error()));
                   if (entries->empty()) return done(std::optional<RegisterEntry>());
                   if (entries->size() > 1 || entries->front().key != key)
                     return done(fail(Code::kCorrupt, "etcd's answer is about another key"));
                   done(std::move(entries->front()));
                 });
  });
}

void EtcdCoordinator::list(std::string prefix, Deadline deadline, ListDone done) {
  loop_.post([this, prefix = std::move(prefix), deadline, done = std::move(done)] {
    if (auto valid = check_register_key(prefix); !valid) return done(fail(valid.error()));
    list_entries(etcd_prefix_request(prefix), deadline, done);
  });
}

void EtcdCoordinator::compare_and_swap(Swap swap, Deadline deadline, SwapDone done) {
  loop_.post([this, swap = std::move(swap), deadline, done = std::move(done)] {
    start_swap(swap, deadline, done);
  });
}

void EtcdCoordinator::start_swap(const Swap& swap, Deadline deadline, SwapDone done) {
  if (auto valid = check_register_entry(swap.key, swap.value); !valid)
    return done(SwapResult::failed(valid.error()));
  auto txn = std::make_shared<EtcdTxn>();
  EtcdCall call;
  call.path = kEtcdTxn;
  call.body = etcd_swap_request(swap);
  call.deadline = deadline;
  call.at_most_once = true;
  call.check = [this, txn, key = swap.key,
                floor = newest_revision_](std::string_view body) -> Result<> {
    OFFPRINT_TRY_ASSIGN(*txn, parse_etcd_txn(body, key));
    return check_header(txn->header, floor);
  };
  session_.call(std::move(call), [txn, done = std::move(done)](EtcdReply reply) {
    if (reply.error && reply.may_have_happened)
      return done(SwapResult::unknown(std::move(*reply.error)));
    if (reply.error) return done(SwapResult::failed(std::move(*reply.error)));
    if (txn->succeeded) return done(SwapResult::applied(txn->header.revision));
    done(SwapResult::refused(std::move(txn->current)));
  });
}

void EtcdCoordinator::watch(std::string prefix, WatchCall call) {
  loop_.post([this, prefix = std::move(prefix), call = std::move(call)] {
    if (session_.has_ended()) return;
    auto list_all = [this](const std::string& from, ListDone done) {
      list_entries(etcd_prefix_request(from),
                   SteadyClock::now() + milliseconds(std::max(1000, options_.watch_poll_ms)),
                   std::move(done));
    };
    watches_.push_back(std::make_unique<EtcdWatch>(EtcdWatch::Parts{loop_, session_, options_},
                                                   prefix, list_all, call));
    watches_.back()->start();
  });
}

void EtcdCoordinator::announce(Announcement announcement, Deadline deadline, AnnounceDone done) {
  loop_.post([this, announcement = std::move(announcement), deadline, done = std::move(done)] {
    if (session_.ended()) return done(fail(*session_.ended()));
    if (auto valid = check_register_entry(announcement.key, announcement.value); !valid)
      return done(fail(valid.error()));
    lease_.announce(announcement, deadline, done);
  });
}

}  // namespace

Result<std::unique_ptr<Coordinator>> create_etcd_coordinator(EtcdOptions options) {
  if (options.endpoints.empty()) return fail(Code::kInvalid, "etcd needs an address");
  for (const std::string& path :
       {options.tls.ca_file, options.tls.certificate_file, options.tls.key_file}) {
    if (path.empty()) continue;
    OFFPRINT_TRY_ASSIGN(bool present, FileSystem::real().exists(path));
    if (!present) return fail(Code::kInvalid, "the file for etcd's TLS is not there: " + path);
  }
  OFFPRINT_TRY_ASSIGN(std::unique_ptr<EtcdHttp> http, EtcdHttp::create(options.tls));
  return std::make_unique<EtcdCoordinator>(std::move(options), std::move(http));
}

}  // namespace offprint::cluster
