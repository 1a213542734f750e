#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "cluster/coordinator.h"
#include "cluster/etcd_session.h"

namespace offprint::cluster {

// Tells of changes of the keys with a prefix: a stream from etcd, and every few seconds a look at
// what is there, because a stream that hangs says nothing. Thread: the loop's.
class EtcdWatch {
 public:
  using Lister = std::function<void(std::string prefix, Coordinator::ListDone done)>;

  struct Parts {  // all outlive it
    CoordinatorLoop& loop;
    EtcdSession& session;
    const EtcdOptions& options;
  };
  EtcdWatch(Parts parts, std::string prefix, Lister list, Coordinator::WatchCall call);
  EtcdWatch(const EtcdWatch&) = delete;
  EtcdWatch& operator=(const EtcdWatch&) = delete;

  void start();

 private:
  void open();
  void take(std::string_view bytes);
  void take_line(std::string_view line);
  void poll();
  void poll_often();
  // Whether something was new.
  bool compare(const std::vector<RegisterEntry>& entries);
  bool tell(const RegisterHint& hint);
  void reopen_later();

  CoordinatorLoop& loop_;
  EtcdSession& session_;
  const EtcdOptions& options_;
  const std::string prefix_;
  const Lister list_;
  const Coordinator::WatchCall call_;
  std::uint64_t stream_ = 0;  // 0: none
  std::string line_;
  std::map<std::string, std::int64_t> known_;  // the version told last, of keys that are there
  bool polling_ = false;
  int missed_ = 0;  // polls in a row that found what the stream had not told
};

}  // namespace offprint::cluster
