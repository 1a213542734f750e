#pragma once

#include <memory>
#include <string>

#include <sys/socket.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>

#include "base/clock.h"
#include "base/result.h"

namespace offprint::cluster {

// Where another node is.
struct Upstream {
  std::string host;
  std::string port;
  std::string base;  // path before every target; without a slash at the end
  bool tls = false;
};

// Of http://HOST[:PORT][/PATH] or https://…; kInvalid.
Result<Upstream> parse_upstream(const std::string& url);

// One connection to another node, with or without TLS. Thread: that of its io_context.
class Link {
 public:
  using PlainStream = boost::beast::tcp_stream;
  using TlsStream = boost::beast::ssl_stream<boost::beast::tcp_stream>;

  // `context` is null without TLS.
  Link(boost::asio::io_context& io, boost::asio::ssl::context* context);

  // Nothing until it is connected, then `failure` stays empty. Within `timeout_ms`.
  boost::asio::awaitable<void> connect(const Upstream& upstream, int timeout_ms,
                                       std::string& failure);
  PlainStream& bottom() { return tls_ ? boost::beast::get_lowest_layer(*tls_) : *plain_; }
  bool is_open() { return bottom().socket().is_open(); }
  // Nothing came on it, and it is open: the other side did not close it.
  bool is_quiet();
  // Calls work(stream) with the stream that it has.
  template <class Work>
  auto with_stream(Work work) {
    return tls_ ? work(*tls_) : work(*plain_);
  }

  boost::beast::flat_buffer buffer;  // read and not used yet
  Deadline unused_since{};

 private:
  std::unique_ptr<PlainStream> plain_;
  std::unique_ptr<TlsStream> tls_;
};

}  // namespace offprint::cluster
