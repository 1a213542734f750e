#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

// HTTP from the client's side: one request after the other over a kept connection.
namespace offprint::replica {

// Ends a request from another thread. Thread: any.
class HttpCancel {
 public:
  // The running request of the client that was given this, and every later one, fails with
  // kTimeout.
  void cancel();
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

 private:
  friend class HttpClient;
  std::atomic<bool> cancelled_{false};
  std::mutex mutex_;
  void* multi_ = nullptr;  // of the client, CURLM*; guarded by mutex_
};

struct HttpCall {
  std::string method = "GET";
  std::string url;
  std::vector<std::string> headers;  // "Name: value"
  std::string_view body;             // sent when the method is POST or PUT and there is no file
  std::FILE* body_file = nullptr;    // sent from its current position; its size is body_file_size
  std::uint64_t body_file_size = 0;
  // Takes the body of a 2xx answer piece by piece; an error ends the request with it. Empty: it
  // goes into HttpAnswer::body, as the bodies of all other answers do.
  std::function<Result<>(ByteView)> sink;
  // Called now and then with bytes sent of the body, and bytes received.
  std::function<void(std::uint64_t sent, std::uint64_t received)> progress;
  int connect_timeout_ms = 5'000;
  // The request fails when nothing at all moves for so long; 0: never.
  int stall_timeout_ms = 60'000;
};

struct HttpAnswer {
  int status = 0;
  std::string body;
  std::uint64_t length = 0;  // from Content-Length; 0: not said
  bool ok() const { return status >= 200 && status < 300; }
  // The value of a header, empty when it is absent. Case does not matter.
  std::string_view header(std::string_view name) const;

  std::vector<std::pair<std::string, std::string>> headers;
};

// Thread: one. Errors: kUnavailable: not reachable, or the connection broke, with what the system
// said; kTimeout: it stalled, or was cancelled; kTooLarge: an answer without a sink above kBodyMax.
// Answers of any status are no errors.
class HttpClient {
 public:
  static constexpr std::size_t kBodyMax = 256 << 20;

  // `token`, when not empty, is sent as a bearer token. `cancel` may be nullptr, else must outlive
  // the client.
  explicit HttpClient(std::string token = {}, HttpCancel* cancel = nullptr);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  Result<HttpAnswer> perform(const HttpCall& call);

 private:
  struct Transfer;
  void attach(void* multi);

  const std::string token_;
  HttpCancel* cancel_;
  void* multi_;  // CURLM*
  void* easy_;   // CURL*
};

}  // namespace offprint::replica
