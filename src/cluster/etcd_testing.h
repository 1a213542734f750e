#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

// An endpoint that answers as a test says, on a loopback port.
namespace offprint::cluster::testing {

struct FakeReply {
  enum class Then { kKeep, kClose, kReset, kHang };
  std::string bytes;  // of the whole HTTP answer
  Then then = Then::kKeep;

  static FakeReply json(const std::string& body, int status = 200) {
    return {
        fmt::format("HTTP/1.1 {} Said\r\nContent-Type: application/json\r\n"
                    "Content-Length: {}\r\n\r\n{}",
                    status, body.size(), body)};
  }
  static FakeReply error(int status, int code, const std::string& message) {
    return json(fmt::format(R"({{"error":"{0}","message":"{0}","code":{1}}})", message, code),
                status);
  }
  static FakeReply hang() { return {"", Then::kHang}; }
};

struct FakeRequest {
  std::string path, token, body;
  int number = 0;  // on its connection, from 1 on
};

class FakeEndpoint {
 public:
  using Script = std::function<FakeReply(const FakeRequest&)>;

  explicit FakeEndpoint(Script script) : script_(std::move(script)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        ::listen(listener_, 64) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      std::abort();
    }
    port_ = ntohs(address.sin_port);
    accepter_ = std::thread([this] { accept_all(); });
  }
  ~FakeEndpoint() {
    ::shutdown(listener_, SHUT_RDWR);
    accepter_.join();
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      for (int socket : sockets_) ::shutdown(socket, SHUT_RDWR);
    }
    changed_.notify_all();
    for (std::thread& each : connections_) each.join();
    ::close(listener_);
  }
  FakeEndpoint(const FakeEndpoint&) = delete;
  FakeEndpoint& operator=(const FakeEndpoint&) = delete;

  std::string url() const { return fmt::format("http://127.0.0.1:{}", port_); }
  std::vector<FakeRequest> requests() {
    std::lock_guard lock(mutex_);
    return requests_;
  }
  int count(const std::string& path) {
    int count = 0;
    for (const FakeRequest& each : requests()) count += each.path == path ? 1 : 0;
    return count;
  }

 private:
  void accept_all() {
    for (;;) {
      int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (socket < 0) return;
      std::lock_guard lock(mutex_);
      sockets_.push_back(socket);
      connections_.emplace_back([this, socket] { serve(socket); });
    }
  }

  // One request from what is read of the connection; false at its end.
  static bool receive(int socket, std::string& buffer, FakeRequest& request) {
    std::size_t head = std::string::npos, length = 0;
    for (;;) {
      if (head == std::string::npos) {
        head = buffer.find("\r\n\r\n");
        std::size_t at = buffer.find("Content-Length: ");
        if (head != std::string::npos && at < head)
          length = static_cast<std::size_t>(std::atoi(buffer.c_str() + at + 16));
      }
      if (head != std::string::npos && buffer.size() >= head + 4 + length) break;
      char bytes[4096];
      ssize_t got = ::recv(socket, bytes, sizeof bytes, 0);
      if (got <= 0) return false;
      buffer.append(bytes, static_cast<std::size_t>(got));
    }
    std::string lines = buffer.substr(0, head + 2);
    std::size_t space = lines.find(' ');
    request.path = lines.substr(space + 1, lines.find(' ', space + 1) - space - 1);
    request.token.clear();
    if (std::size_t at = lines.find("Authorization: "); at != std::string::npos)
      request.token = lines.substr(at + 15, lines.find('\r', at) - at - 15);
    request.body = buffer.substr(head + 4, length);
    buffer.erase(0, head + 4 + length);
    return true;
  }

  void serve(int socket) {
    std::string buffer;
    FakeRequest request;
    while (receive(socket, buffer, request)) {
      ++request.number;
      {
        std::lock_guard lock(mutex_);
        requests_.push_back(request);
      }
      FakeReply reply = script_(request);
      ::send(socket, reply.bytes.data(), reply.bytes.size(), MSG_NOSIGNAL);
      if (reply.then == FakeReply::Then::kHang) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stopping_; });
      }
      if (reply.then == FakeReply::Then::kReset) {
        linger now{1, 0};
        ::setsockopt(socket, SOL_SOCKET, SO_LINGER, &now, sizeof now);
      }
      if (reply.then != FakeReply::Then::kKeep) break;
    }
    std::lock_guard lock(mutex_);
    std::erase(sockets_, socket);
    ::close(socket);
  }

  const Script script_;
  int listener_ = -1;
  int port_ = 0;
  std::thread accepter_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::vector<int> sockets_;
  std::vector<std::thread> connections_;
  std::vector<FakeRequest> requests_;
};

}  // namespace offprint::cluster::testing
