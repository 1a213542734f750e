#include "server/transport.h"

#include <boost/asio/error.hpp>

namespace offprint::server {

Transport::Transport(Socket socket, const std::shared_ptr<TlsCredentials>& credentials)
    : socket_(std::move(socket)) {
  if (credentials) tls_.emplace(credentials->context(), socket_.native_handle());
}

Transport::Awaitable<Transport::ErrorCode> Transport::handshake() {
  ErrorCode error;
  for (;;) {
    TlsSession::State state = tls_->handshake();
    if (state == TlsSession::State::kFailed) error = boost::asio::error::connection_reset;
    if (state != TlsSession::State::kWait || error) co_return error;
    co_await wait(tls_->need() == TlsSession::Need::kWrite ? Socket::wait_write : Socket::wait_read,
                  error);
    if (error) co_return error;
  }
}

Transport::Awaitable<std::size_t> Transport::read_tls(boost::asio::mutable_buffer room,
                                                      ErrorCode& error) {
  for (;;) {
    ssize_t size = tls_->receive(static_cast<char*>(room.data()), room.size());
    if (size > 0) co_return static_cast<std::size_t>(size);
    if (size == 0) {
      error = boost::asio::error::eof;
    } else if (errno != EAGAIN) {
      error = ErrorCode(errno, boost::system::system_category());
    } else {
      co_await wait(
          tls_->need() == TlsSession::Need::kWrite ? Socket::wait_write : Socket::wait_read, error);
    }
    if (error) co_return 0;
  }
}

}  // namespace offprint::server
