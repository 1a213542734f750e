#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "cluster/forwarder.h"

namespace offprint::cluster {

// The way to whoever is primary. While nobody is, requests wait; what a node refused because it is
// not primary any more is sent on to the next one, and what has a key also when nobody knows what
// became of it. Thread: any.
class PrimaryForwarder final : public Forwarder {
 public:
  // Where the primary answers; nothing: not known at the moment. Thread: any.
  using Find = std::function<std::optional<std::string>()>;
  // `options` without a URL. `wait_ms`: for a primary, at most.
  PrimaryForwarder(ForwarderOptions options, Find find, int wait_ms);
  ~PrimaryForwarder() override;

  void send(ForwardedRequest request, std::function<void(Result<ForwardedAnswer>)> done) override;
  // To the primary of this moment. kUnavailable: there is none.
  void open_tunnel(ForwardedRequest request,
                   std::function<void(Result<OpenedTunnel>)> done) override;

 private:
  struct Waiting;
  void attempt(std::shared_ptr<Waiting> waiting);
  void later(std::shared_ptr<Waiting> waiting);
  Result<Forwarder*> way();
  void work();

  const ForwarderOptions options_;
  const Find find_;
  const int wait_ms_;
  std::mutex mutex_;
  std::condition_variable wake_;
  // --- guarded by mutex_
  std::deque<std::shared_ptr<Waiting>> waiting_;
  bool stopping_ = false;
  std::thread thread_;
  std::map<std::string, std::unique_ptr<Forwarder>> ways_;  // by URL; they end first
};

}  // namespace offprint::cluster
