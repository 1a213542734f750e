#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "cluster/coordinator_loop.h"
#include "replica/curl_handles.h"

namespace offprint::cluster {

// Who is trusted and who we are. PEM files; empty: the system's certificates, no certificate.
struct EtcdTls {
  std::string ca_file;
  std::string certificate_file;
  std::string key_file;
};

struct EtcdExchange {
  std::string url;
  std::string body;                  // JSON
  std::string token;                 // empty: none
  std::optional<Deadline> deadline;  // of the whole exchange
  int connect_timeout_ms = 1000;     // with the TLS handshake
  // On a connection of its own, so that libcurl never sends it again: it does so when a kept
  // connection turns out to be closed.
  bool at_most_once = false;
  // Takes the answer's bytes as they come, which are not kept then; does not start or stop
  // anything.
  std::function<void(std::string_view)> on_data;
};

struct EtcdAnswer {
  int status = 0;
  std::string body;
  std::optional<std::string> failure;  // no whole answer came
  bool may_be_sent = false;            // a byte of the body was handed to the connection
};

// POST requests to etcd's JSON gateway, several at once over kept connections, by libcurl.
// Thread: the loop's, of which it is the waiter.
class EtcdHttp final : public CoordinatorLoop::Waiter {
 public:
  using Id = std::uint64_t;
  using Done = std::function<void(EtcdAnswer)>;

  static Result<std::unique_ptr<EtcdHttp>> create(EtcdTls tls);
  ~EtcdHttp() override;

  // `done` once, never from within start().
  Id start(EtcdExchange exchange, Done done);
  // Drops an exchange without calling its `done`; not from within on_data. Whether it may have been
  // sent.
  bool stop(Id id);

  void wait(std::optional<Deadline> until) override;
  void wake() override;

 private:
  struct Active;
  EtcdHttp(EtcdTls tls, CURLM* multi);
  static std::size_t on_body(char* data, std::size_t size, std::size_t count, void* self);
  static std::size_t on_read(char* to, std::size_t size, std::size_t count, void* self);
  void set_options(Active& active);
  bool finish_all();

  const EtcdTls tls_;
  replica::MultiHandle multi_;
  Id next_ = 0;
  std::map<Id, std::unique_ptr<Active>> active_;
};

}  // namespace offprint::cluster
