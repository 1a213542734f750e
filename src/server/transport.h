#pragma once

#include <cerrno>
#include <memory>
#include <optional>
#include <span>

#include <sys/socket.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "server/io_loop.h"
#include "server/tls.h"

namespace offprint::server {

// A connection's bytes, as they are or through TLS. Plain ones go straight to the socket. Thread:
// the loop's.
class Transport {
 public:
  using Socket = boost::asio::basic_stream_socket<boost::asio::ip::tcp, IoLoop::Executor>;
  template <class T>
  using Awaitable = boost::asio::awaitable<T, IoLoop::Executor>;
  using Token = boost::asio::use_awaitable_t<IoLoop::Executor>;
  using ErrorCode = boost::system::error_code;

  // `credentials` may be empty: no TLS.
  Transport(Socket socket, const std::shared_ptr<TlsCredentials>& credentials);

  Socket& socket() { return socket_; }
  const Socket& socket() const { return socket_; }
  bool is_tls() const { return tls_.has_value(); }
  // With TLS: once, before anything else.
  Awaitable<ErrorCode> handshake();

  // As ::send(): what is taken at once, or -1 with errno EAGAIN and others.
  ssize_t send_now(const char* data, std::size_t size) {
    if (tls_) return tls_->send(data, size);
    return ::send(socket_.native_handle(), data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  // After EAGAIN: until it is worth to try again.
  auto wait_writable(ErrorCode& error) {
    return wait(
        tls_ && tls_->need() == TlsSession::Need::kRead ? Socket::wait_read : Socket::wait_write,
        error);
  }
  // At least one byte, or an error (asio::error::eof at the end). Without TLS without a coroutine
  // of its own.
  Awaitable<std::size_t> read_some(boost::asio::mutable_buffer room, ErrorCode& error) {
    if (tls_) return read_tls(room, error);
    return socket_.async_read_some(room, boost::asio::redirect_error(Token(), error));
  }
  // Nothing more is sent.
  void close_sending(ErrorCode& error) {
    if (tls_) tls_->say_goodbye();
    socket_.shutdown(Socket::shutdown_send, error);
  }

 private:
  Awaitable<void> wait(Socket::wait_type what, ErrorCode& error) {
    return socket_.async_wait(what, boost::asio::redirect_error(Token(), error));
  }
  Awaitable<std::size_t> read_tls(boost::asio::mutable_buffer room, ErrorCode& error);

  Socket socket_;
  std::optional<TlsSession> tls_;
};

}  // namespace offprint::server
