#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace offprint::archive {

inline constexpr int kStopMs = 100;

struct HttpRequest {
  std::string method;
  std::string url;
  std::vector<std::string> headers;         // "name: value"
  ByteView body;                            // must stay until perform() returns
  std::size_t answer_max = 0;               // bytes of a body that are taken
  int stall_seconds = 20;                   // without a byte in either direction
  const std::atomic<bool>* stop = nullptr;  // ends this exchange within kStopMs
};

struct HttpAnswer {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  Bytes body;
  // What kept the exchange from its end; status, headers and body are what had come by then.
  std::string failure;
  bool may_repeat = false;  // the failure may pass

  std::string header(const std::string& name) const;
};

// One HTTP exchange after another over kept connections, from any number of threads.
class HttpTransport {
 public:
  struct Options {
    std::string ca_file;
    bool no_proxy = false;
    int connect_timeout_ms = 10'000;
  };
  static Result<std::unique_ptr<HttpTransport>> create(Options options);
  ~HttpTransport();

  // Blocks.
  HttpAnswer perform(const HttpRequest& request);
  // Ends all exchanges, those to come too.
  void cancel();
  bool cancelled() const { return cancelled_; }
  // False when cancelled or stopped meanwhile.
  bool pause(int ms, const std::atomic<bool>* stop);

 private:
  class Line;
  explicit HttpTransport(Options options);
  std::unique_ptr<Line> take();
  void give_back(std::unique_ptr<Line> line);

  const Options options_;
  std::atomic<bool> cancelled_{false};
  std::mutex mutex_;
  std::condition_variable cancel_signal_;
  std::vector<std::unique_ptr<Line>> idle_;
  std::vector<Line*> busy_;
};

}  // namespace offprint::archive
