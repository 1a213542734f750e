#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "database/executor.h"
#include "replica/followed_set.h"
#include "replica/instance_follower.h"
#include "server/instances.h"
#include "server/service.h"
#include "server/waiting_limit.h"

namespace offprint::server {

// Instances of publications on a node that has copies: each is a copy of the primary's, which makes
// it, and has one stream for all of them however many follow them here. What nobody asks for any
// more is let go. Thread: any.
class InstanceRelay final : public InstanceHost, private replica::FollowedSet {
 public:
  struct Options {
    // See publication::Publications::Options.
    std::chrono::milliseconds rest_after = std::chrono::hours(1);
    std::chrono::milliseconds drop_after = std::chrono::hours(24);
    std::chrono::milliseconds sweep_every{5'000};
    std::size_t instances_max = 10'000;
  };
  // `service`, whose forwarder leads to the primary, must outlive it; so must its store. The copies
  // of an earlier run are found again.
  static Result<std::unique_ptr<InstanceRelay>> create(Service& service,
                                                       replica::NodeFollowerOptions follow,
                                                       const Options& options);
  ~InstanceRelay() override { stop(); }

  void start();
  // Who waits is answered 503. Before the store goes.
  void stop();

  std::optional<database::DatabaseName> find_open(const InstanceAddress& instance) override;
  void open(const InstanceAddress& instance, std::size_t size_bytes,
            std::function<void(Opened)> done) override;
  std::unique_ptr<Lease> lease(const InstanceAddress& instance,
                               const database::DatabaseName& name) override;
  Result<std::string> address_of(const InstanceAddress& instance,
                                 const database::DatabaseName& name) override;

  // Of a copy: NodeFollower::age_ms(), and the state of its source that it is of.
  std::int64_t age_ms(const database::DatabaseName& name) const { return follower_->age_ms(name); }
  std::optional<Bookmark> source_of(const database::DatabaseName& name);
  // Those that are followed.
  std::size_t count();

 private:
  using Done = std::function<void(Opened)>;
  struct Entry;
  // Where an instance is that was asked for by some text.
  struct Known {
    std::string address;
    Deadline asked_at{};
    bool is_for_good = false;  // else another version may be the newest some time
  };

  InstanceRelay(Service& service, std::string token, const Options& options)
      : service_(service), token_(std::move(token)), options_(options) {}

  // replica::FollowedSet
  std::string request(database::Store& store, const std::set<std::string>& repairing) override;
  Result<database::DatabaseName> name_of(const std::string& told) override;
  std::string path_of(const database::DatabaseName& name) override;
  void is_fresh(const database::DatabaseName& name) override;
  void has_source(const database::DatabaseName& name, TxId at, const Bookmark& source) override;
  void has_ended(const database::DatabaseName& name, bool is_gone, const std::string& why) override;

  void ask_primary(const std::string& key, bool is_for_good, int tries);
  void take_address(const std::string& key, bool is_for_good,
                    Result<cluster::ForwardedAnswer> answer);
  void keep(const std::string& address, Done done);
  void answer(Done done, Opened opened);
  std::vector<Done> take_waiting(Entry& entry);
  void expire(const std::string& name, Deadline at);
  void plan_sweep();
  void sweep();
  void drop_unused();

  Service& service_;
  const std::string token_;
  const Options options_;
  std::unique_ptr<replica::InstanceFollower> follower_;
  database::Timers timers_;
  WaitingLimit waiting_;

  std::mutex mutex_;
  // All of it guarded by mutex_.
  bool stopping_ = false;
  std::map<std::string, Known> known_;                     // by how they were asked for
  std::map<std::string, std::vector<Done>> asking_;        // the primary is asked for them
  std::map<std::string, std::shared_ptr<Entry>> entries_;  // by the name of the copy
  std::map<std::string, Deadline> unused_;  // copies that are not kept up, since when
  std::set<std::string> dropping_;          // of them, just now
};

}  // namespace offprint::server
