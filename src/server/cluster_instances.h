#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "database/executor.h"
#include "server/instance_use.h"
#include "server/instances.h"
#include "server/service.h"
#include "server/waiting_limit.h"

namespace offprint::server {

// Instances of publications on a node of a cluster. The primary makes them and keeps them up; as
// databases of the cluster they are on all nodes, and each answers of its own copy. Those that are
// used somewhere are asked for again and again, by whichever node is used, so that they are kept up
// by whoever is primary. Thread: any.
class ClusterInstances final : public InstanceHost {
 public:
  // `service`, with its cluster, forwarder and publications, must outlive it. `rest_after`: as
  // publication::Publications::Options::rest_instance_after.
  ClusterInstances(Service& service, std::chrono::milliseconds rest_after);
  ~ClusterInstances() override { stop(); }
  // Who waits is answered 503. Before the store goes.
  void stop();

  std::optional<database::DatabaseName> find_open(const InstanceAddress& instance) override;
  void open(const InstanceAddress& instance, std::size_t size_bytes,
            std::function<void(Opened)> done) override;
  std::unique_ptr<Lease> lease(const InstanceAddress& instance,
                               const database::DatabaseName& name) override;
  Result<std::string> address_of(const InstanceAddress& instance,
                                 const database::DatabaseName& name) override;

 private:
  class InstanceLease;
  // One that is to be opened.
  struct Opening {
    InstanceAddress instance;
    std::string text;
    std::size_t size_bytes = 0;
    Deadline until;
    std::function<void(Opened)> done;
  };
  // What the primary says of it.
  struct Told {
    std::string address;
    database::DatabaseName name;
    Bookmark at;
  };
  // One that is used, or was lately.
  struct Entry {
    std::string address;
    std::shared_ptr<InstanceUse> use;
    Deadline ask_at;
    bool is_asked_for = false;
  };
  struct Known {
    std::string name;
    Deadline asked_at;
    bool is_for_good = false;  // else another version may be the newest some time
  };
  using OpeningPtr = std::shared_ptr<Opening>;

  void attempt(OpeningPtr opening);
  void later(OpeningPtr opening);
  void open_here(OpeningPtr opening);
  void ask_primary(OpeningPtr opening);
  void arrive(OpeningPtr opening, Told told, std::chrono::milliseconds look_again);
  void finish(const Opening& opening, const database::DatabaseName& name,
              const std::string& address);
  void refuse(OpeningPtr opening, Response refusal);
  void plan_look();
  void look();
  void ask_again(const std::string& name, const std::string& address);
  void note_answer(const std::string& name, const Opened& opened);
  void forget(const std::string& name);
  bool is_stopping();

  Service& service_;
  const std::chrono::milliseconds rest_after_;
  database::Timers timers_;
  WaitingLimit waiting_;
  std::shared_ptr<std::atomic<std::uint64_t>> term_;  // of roles, as far as this has seen them

  std::mutex mutex_;
  // --- guarded by mutex_
  bool stopping_ = false;
  std::map<std::string, Known> known_;    // by how they were asked for
  std::map<std::string, Entry> entries_;  // by name
  std::uint64_t seen_epoch_ = 0;
  bool seen_as_follower_ = true;
};

// GET /v1/cluster/instance?of=ADDRESS, signed, of another node of the cluster: opens an instance.
// {"address":"orders/pub/shop@v2?tenant=7","database":"@…","bookmark":"…"}
void handle_cluster_instance(Service& service, InstanceHost& host, const Address& address,
                             HttpRequest& request, Responder responder);

}  // namespace offprint::server
