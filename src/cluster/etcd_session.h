#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "cluster/coordinator_loop.h"
#include "cluster/etcd_http.h"
#include "cluster/etcd_messages.h"

namespace offprint::cluster {

struct EtcdOptions {
  std::vector<std::string> endpoints;  // http://HOST:PORT or https://HOST:PORT of one etcd cluster
  EtcdTls tls;
  std::string user;  // empty: no authentication
  std::string password;
  // An endpoint that has not answered a read after this is left for the next one.
  int attempt_timeout_ms = 1000;
  // With the TLS handshake; after it even a swap goes to the next endpoint.
  int connect_timeout_ms = 500;
  // Between two looks at what a watch may have missed.
  int watch_poll_ms = 2000;
};

struct EtcdCall {
  std::string path;
  std::string body;
  Deadline deadline{};
  bool at_most_once = false;  // not repeated once it may have been sent
  // Whether the answer is one; its failure is the endpoint's.
  std::function<Result<>(std::string_view body)> check;
};

struct EtcdReply {
  std::optional<Error> error;
  bool may_have_happened = false;  // of a call that is sent at most once, with an error
  std::string body;                // without
};

// Requests to one of an etcd cluster's endpoints: chooses it, goes on to the next when it fails,
// and keeps a token. A call that changes nothing by being repeated is tried again until its
// deadline. Thread: the loop's, but for the constructor.
class EtcdSession {
 public:
  using Done = std::function<void(EtcdReply)>;
  struct Stream {
    std::string path;
    std::string body;
    std::function<void(std::string_view)> on_data;
    std::function<void(Error)> on_end;  // once, unless it was stopped
  };

  // Both outlive it.
  EtcdSession(CoordinatorLoop& loop, EtcdHttp& http, const EtcdOptions& options);
  EtcdSession(const EtcdSession&) = delete;
  EtcdSession& operator=(const EtcdSession&) = delete;

  // `done` once, maybe before it returns.
  void call(EtcdCall call, Done done);
  // An exchange whose answer does not end. One attempt.
  std::uint64_t stream(Stream stream);
  // `failed`: its endpoint is not to be trusted.
  void stop_stream(std::uint64_t id, bool failed);
  // Ends all calls; those to come fail at once.
  void end(Error error);
  bool has_ended() const { return ended_.has_value(); }
  const std::optional<Error>& ended() const { return ended_; }

 private:
  struct Active;
  struct OpenStream {
    Stream stream;
    std::optional<EtcdHttp::Id> exchange;
    std::size_t endpoint = 0;
  };
  using ActivePointer = std::shared_ptr<Active>;

  // The next one is used from now on, unless that was done already.
  void leave_endpoint(std::size_t endpoint);
  void wait_for_token(const ActivePointer& active);
  void attempt(const ActivePointer& active);
  void answer(const ActivePointer& active, std::size_t endpoint, EtcdAnswer answer);
  void answer_failure(const ActivePointer& active, std::size_t endpoint,
                      const EtcdFailure& failure);
  void next_endpoint(const ActivePointer& active, std::size_t endpoint, Error error);
  void finish(const ActivePointer& active, EtcdReply reply);
  bool needs_token(const Active& active) const;
  void fetch_token();
  void take_token(EtcdReply reply);
  void start_stream(std::uint64_t id);
  void end_stream(std::uint64_t id, Error error);

  CoordinatorLoop& loop_;
  EtcdHttp& http_;
  const EtcdOptions& options_;
  std::size_t endpoint_ = 0;
  std::uint64_t next_id_ = 0;
  std::map<std::uint64_t, ActivePointer> active_;
  std::map<std::uint64_t, OpenStream> streams_;
  std::optional<Error> ended_;
  // A token, none yet, or: the service wants none.
  std::string token_;
  bool has_token_ = false;
  bool fetching_ = false;
  std::vector<std::function<void(std::optional<Error>)>> waiting_;  // for the token
};

// Endpoints as a user writes them, "URL,URL…", without a last slash. kInvalid with the reason.
Result<std::vector<std::string>> parse_etcd_endpoints(std::string_view text);

}  // namespace offprint::cluster
