#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "server/http_message.h"

// Clients for tests.
namespace offprint::server::testing {

// A plain socket to a server on loopback.
class TestSocket {
 public:
  explicit TestSocket(std::uint16_t port, int receive_buffer = 0) {
    fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
    if (receive_buffer > 0)
      ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
      ADD_FAILURE() << "connect";
  }
  TestSocket(TestSocket&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), buffer_(std::move(other.buffer_)) {}
  ~TestSocket() {
    if (fd_ >= 0) ::close(fd_);
  }

  void send(std::string_view text) {
    while (!text.empty()) {
      ssize_t sent = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;  // the server may have closed already
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
  }

  // One answer: head and body (Content-Length, chunked, or until the end). Empty at the end of the
  // connection.
  struct Answer {
    int status = 0;
    std::string head;
    std::string body;
  };
  Answer read(bool head_only = false) {
    Answer answer;
    std::size_t end;
    while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
      if (!more()) return answer;
    }
    answer.head = buffer_.substr(0, end + 4);
    buffer_.erase(0, end + 4);
    answer.status = std::stoi(answer.head.substr(9, 3));
    if (head_only || answer.status == 100 || answer.status == 204) return answer;
    if (std::size_t at = answer.head.find("Content-Length: "); at != std::string::npos) {
      answer.body = take(std::stoul(answer.head.substr(at + 16)));
    } else if (answer.head.find("chunked") != std::string::npos) {
      while (std::size_t size = std::stoul("0" + line(), nullptr, 16)) {
        answer.body += take(size);
        line();
      }
      line();
    } else {
      while (more()) continue;
      answer.body = std::exchange(buffer_, {});
    }
    return answer;
  }
  Answer ask(std::string_view request) {
    send(request);
    return read();
  }
  // The server closed its side, and nothing more came.
  bool at_end() { return buffer_.empty() && !more(); }
  void close_sending() { ::shutdown(fd_, SHUT_WR); }

  std::string take(std::size_t size) {
    while (buffer_.size() < size && more()) continue;
    std::string taken = buffer_.substr(0, size);
    buffer_.erase(0, size);
    return taken;
  }

 private:
  std::string line() {
    std::size_t end;
    while ((end = buffer_.find("\r\n")) == std::string::npos) {
      if (!more()) return {};
    }
    std::string text = buffer_.substr(0, end);
    buffer_.erase(0, end + 2);
    return text;
  }
  bool more() {
    pollfd poll{fd_, POLLIN, 0};
    if (::poll(&poll, 1, 20'000) != 1) {
      ADD_FAILURE() << "the server says nothing";
      return false;
    }
    char piece[16384];
    ssize_t size = ::recv(fd_, piece, sizeof piece, 0);
    if (size <= 0) return false;
    buffer_.append(piece, static_cast<std::size_t>(size));
    return true;
  }

  int fd_;
  std::string buffer_;
};

// A connection that keeps the answer, for handlers without a socket.
class FakeClient final : public Client {
 public:
  void respond(Response response) override {
    std::lock_guard lock(mutex_);
    EXPECT_FALSE(response_) << "answered twice";
    response_ = std::move(response);
    changed_.notify_all();
  }
  void wake() override {
    std::lock_guard lock(mutex_);
    ++wakes_;
    changed_.notify_all();
  }
  Response wait() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(20), [&] { return response_.has_value(); })) {
      ADD_FAILURE() << "no answer";
      return {};
    }
    return std::move(*response_);
  }
  bool answered() {
    std::lock_guard lock(mutex_);
    return response_.has_value();
  }
  // Until wake() was called since the last time.
  void wait_for_wake() { EXPECT_TRUE(wait_for_wake_or(std::chrono::seconds(20))); }
  // The same, or until so much time has passed (as a connection's tick).
  bool wait_for_wake_or(std::chrono::milliseconds limit) {
    std::unique_lock lock(mutex_);
    bool woken = changed_.wait_for(lock, limit, [&] { return wakes_ > 0; });
    wakes_ = 0;
    return woken;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Response> response_;
  int wakes_ = 0;
};

}  // namespace offprint::server::testing
