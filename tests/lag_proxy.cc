#include "tests/lag_proxy.h"

#include <deque>
#include <utility>

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "base/clock.h"

namespace offprint::testing {
namespace {

constexpr int kPollMs = 20;

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

bool send_all(int socket, const std::string& bytes) {
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    ssize_t size = ::send(socket, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (size <= 0) return false;
    sent += static_cast<std::size_t>(size);
  }
  return true;
}

// What can be read now; false when the other side closed.
bool receive(int socket, std::string& to) {
  char buffer[64 << 10];
  ssize_t size = ::recv(socket, buffer, sizeof buffer, 0);
  if (size <= 0) return false;
  to.assign(buffer, static_cast<std::size_t>(size));
  return true;
}

}  // namespace

LagProxy::LagProxy(std::uint16_t target) : target_(target) {
  open_listener();
  accepting_ = std::thread([this] { accept_loop(); });
}

LagProxy::~LagProxy() {
  stop_.store(true);
  accepting_.join();
  for (std::thread& connection : connections_) connection.join();
  if (listener_ >= 0) ::close(listener_);
}

void LagProxy::set_cut(bool cut) {
  cut_.store(cut);
  for (Deadline until = SteadyClock::now() + std::chrono::seconds(5);
       listens_.load() == cut && SteadyClock::now() < until;)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_NE(listens_.load(), cut);
}

void LagProxy::open_listener() {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int on = 1;
  ::setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address = loopback(port_);
  socklen_t size = sizeof address;
  bool listens = ::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                 ::listen(listener_, 64) == 0 &&
                 ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  EXPECT_TRUE(listens);
  port_ = ntohs(address.sin_port);
  listens_.store(listens);
}

void LagProxy::accept_loop() {
  while (!stop_.load()) {
    if (cut_.load() && listener_ >= 0) {
      ::close(std::exchange(listener_, -1));
      listens_.store(false);
    } else if (!cut_.load() && listener_ < 0) {
      open_listener();
    }
    pollfd waits{listener_, POLLIN, 0};
    if (::poll(&waits, 1, kPollMs) != 1) continue;
    int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) continue;
    std::lock_guard lock(mutex_);
    connections_.emplace_back([this, client] { pass(client); });
  }
}

void LagProxy::pass(int client) {
  int server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(target_);
  int on = 1;
  ::setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  bool open = ::connect(server, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  struct Late {
    Deadline due;
    std::string bytes;
  };
  std::deque<Late> late;
  bool server_closed = false;
  while (open && !stop_.load() && !cut_.load()) {
    pollfd waits[2] = {{client, POLLIN, 0}, {server_closed ? -1 : server, POLLIN, 0}};
    ::poll(waits, 2, late.empty() ? kPollMs : 1);
    std::string bytes;
    if (waits[0].revents != 0) open = receive(client, bytes) && send_all(server, bytes);
    if (waits[1].revents != 0) {
      if (receive(server, bytes)) {
        late.push_back(
            {SteadyClock::now() + std::chrono::milliseconds(delay_ms_.load()), std::move(bytes)});
      } else {
        server_closed = true;
      }
    }
    while (open && !late.empty() && late.front().due <= SteadyClock::now()) {
      open = send_all(client, late.front().bytes);
      late.pop_front();
    }
    if (server_closed && late.empty()) open = false;
  }
  ::close(client);
  ::close(server);
}

}  // namespace offprint::testing
