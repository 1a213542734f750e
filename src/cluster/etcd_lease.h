#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/coordinator.h"
#include "cluster/etcd_session.h"

namespace offprint::cluster {

// Keeps keys there by one lease, which is renewed and, when it was lost, made anew. After each
// renewal it looks whether the keys are still there: etcd up to 3.4.37 may answer a renewal of a
// lease that is gone. Thread: the loop's.
class EtcdLease {
 public:
  // Both outlive it.
  EtcdLease(CoordinatorLoop& loop, EtcdSession& session) : loop_(loop), session_(session) {}
  EtcdLease(const EtcdLease&) = delete;
  EtcdLease& operator=(const EtcdLease&) = delete;

  void announce(Announcement announcement, Deadline deadline, Coordinator::AnnounceDone done);
  // Answers those that wait.
  void end(const Error& error);

 private:
  struct Waiting {
    std::uint64_t id;
    std::string key;
    Coordinator::AnnounceDone done;
    CoordinatorLoop::TimerId timer;
  };

  void start_round();
  void grant();
  void renew();
  void look(std::vector<std::string> keys);
  void put(std::vector<std::string> keys);
  void end_round(bool worked);
  void lose();
  void answer(const std::string& key);
  void request(const char* path, std::string body, std::function<Result<>(std::string_view)> check,
               std::function<void(EtcdReply)> done);

  CoordinatorLoop& loop_;
  EtcdSession& session_;
  int ttl_ms_ = 0;  // 0: nothing is announced
  std::int64_t lease_ = 0;
  std::map<std::string, std::string> keys_;
  std::map<std::string, std::string> standing_;  // as put with this lease
  std::vector<Waiting> waiting_;
  std::uint64_t next_id_ = 0;
  bool in_round_ = false;
  bool again_ = false;  // a round was asked for during one
  std::uint64_t timer_round_ = 0;
};

}  // namespace offprint::cluster
