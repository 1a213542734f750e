#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "server/http_message.h"

namespace offprint::server {

// Bytes in, requests out: HTTP/1.0 and 1.1, Content-Length and chunked bodies. Refuses whatever two
// parsers could read differently (both lengths, unknown transfer codings, two hosts …):
// docs/protocol/http.md "What is refused". Thread: one.
class HttpParser {
 public:
  enum class State {
    kHead,     // needs more of the head
    kBody,     // the head is there; needs more of the body
    kDone,     // the request is complete
    kRefused,  // error_status() and error_text() say why; the connection must be closed
  };

  explicit HttpParser(std::size_t head_limit);
  ~HttpParser();

  // Ready for the next request of the connection.
  void reset();
  // Takes bytes, stopping at the end of the head and at the end of the message; returns how many it
  // took. What it left must be fed again, with more behind it when the state is kHead.
  std::size_t feed(std::string_view bytes);
  State state() const { return state_; }

  // From kBody on. Views are valid until reset().
  HttpRequest& request() { return request_; }
  // Body bytes beyond this refuse the request (413). Call once the head is there.
  void set_body_limit(std::uint64_t limit);
  // What has been received of the body and not been moved out yet.
  std::string& body();

  int error_status() const { return error_status_; }
  const std::string& error_text() const { return error_text_; }

 private:
  void take_head();
  void refuse(int status, std::string text);

  struct Beast;  // keeps Boost.Beast within one source file
  std::unique_ptr<Beast> beast_;
  const std::size_t head_limit_;
  State state_ = State::kHead;
  HttpRequest request_;
  int error_status_ = 0;
  std::string error_text_;
};

}  // namespace offprint::server
