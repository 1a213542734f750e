#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace offprint::replica {

// One HTTP request at a time whose answer is read as it comes. http and https, by libcurl.
// Thread: one, but wake() from any thread and from signal handlers.
class HttpClient {
 public:
  struct Request {
    std::string url;
    std::vector<std::string> headers;  // "Name: value"
    std::string method;                // empty: POST with a body, else GET
    std::optional<Bytes> body;
    std::FILE* body_file = nullptr;  // instead of `body`: sent from its beginning, where it stands;
                                     // outlives the request
    std::uint64_t body_file_size = 0;
    int connect_timeout_ms = 5000;
    std::string ca_file;  // PEM; empty: the system's certificates
  };
  enum class Event {
    kData,   // received() has bytes
    kEnd,    // the answer is complete
    kIdle,   // the time is over and nothing came
    kWoken,  // by wake()
  };

  static Result<std::unique_ptr<HttpClient>> create();
  virtual ~HttpClient() = default;

  // Drops the request before, if any.
  virtual Result<> start(Request request) = 0;
  virtual void stop() = 0;
  // Waits up to `timeout_ms` for something to happen; without a request just waits. kUnavailable:
  // the connection could not be made, or broke.
  virtual Result<Event> wait(int timeout_ms) = 0;
  // Bytes of the request's body that have gone out, and of the answer's that are to come (0: not
  // said).
  virtual std::uint64_t sent() const = 0;
  virtual std::uint64_t length() const = 0;
  // The answer's status, 0 before it is known.
  virtual int status() const = 0;
  // Bytes of the body that came since the last clear by the caller.
  virtual Bytes& received() = 0;
  // Makes the current or next wait() return at once.
  virtual void wake() = 0;
};

// The message of an error answer ({"error":{…,"message":"…"}}), or the answer as it is.
std::string message_of(const std::string& body);

}  // namespace offprint::replica
