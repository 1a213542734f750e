#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <thread>

namespace offprint::testing {

// A network between two processes on loopback that is slow or cut: passes bytes on, what the server
// sends after a delay. Thread: any.
class LagProxy {
 public:
  explicit LagProxy(std::uint16_t target);
  ~LagProxy();
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  void set_delay_ms(int delay_ms) { delay_ms_.store(delay_ms); }
  // Cuts all connections and takes no new ones until it is mended.
  void set_cut(bool cut);

 private:
  void open_listener();
  void accept_loop();
  void pass(int client);

  const std::uint16_t target_;
  std::uint16_t port_ = 0;  // constant after construction
  int listener_ = -1;
  std::atomic<int> delay_ms_{0};
  std::atomic<bool> cut_{false}, stop_{false}, listens_{false};
  std::mutex mutex_;
  std::list<std::thread> connections_;  // guarded by mutex_
  std::thread accepting_;
};

}  // namespace offprint::testing
