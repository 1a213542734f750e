#include "main/load_generator.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"

namespace offprint {
namespace {

constexpr int kReconnectsMax = 1000;

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  int number() const { return number_; }

 private:
  int number_;
};

Result<Descriptor> connect_to(const LoadOptions& options) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  int error = getaddrinfo(options.host.c_str(), options.port.c_str(), &hints, &found);
  if (error != 0)
    return fail(Code::kUnavailable, fmt::format("{}: {}", options.host, gai_strerror(error)));
  std::unique_ptr<addrinfo, FreeAddresses> addresses(found);
  int failure = 0;
  for (addrinfo* address = found; address != nullptr; address = address->ai_next) {
    Descriptor socket(::socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (socket.number() >= 0 &&
        ::connect(socket.number(), address->ai_addr, address->ai_addrlen) == 0) {
      int on = 1;
      ::setsockopt(socket.number(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      ::fcntl(socket.number(), F_SETFL, O_NONBLOCK);
      return socket;
    }
    failure = errno;
  }
  return fail(Code::kUnavailable,
              fmt::format("{}:{}: {}", options.host, options.port, std::strerror(failure)));
}

// An answer at the start of `text`: its whole size, or 0 while it is not complete.
struct Answer {
  std::size_t size = 0;
  bool ok = false;
  bool malformed = false;
};
Answer parse_answer(std::string_view text) {
  std::size_t head = text.find("\r\n\r\n");
  if (head == std::string_view::npos) return {};
  int status = 0;
  if (text.size() > 12) std::from_chars(text.data() + 9, text.data() + 12, status);
  std::size_t length = std::string_view::npos;
  for (std::size_t at = text.find("\r\n"); at < head; at = text.find("\r\n", at + 2)) {
    std::string_view line = text.substr(at + 2, 16);
    if (line.size() == 16 && ::strncasecmp(line.data(), "content-length: ", 16) == 0) {
      std::from_chars(text.data() + at + 18, text.data() + head, length);
    }
  }
  if (length == std::string_view::npos) return {0, false, true};
  if (text.size() < head + 4 + length) return {};
  std::string_view body = text.substr(head + 4, length);
  bool failed = body.find(R"("type":"error")") != std::string_view::npos ||
                body.find(R"("success":false)") != std::string_view::npos;
  return {head + 4 + length, status >= 200 && status < 300 && !failed, false};
}

struct Client {
  Descriptor socket{-1};
  std::string to_send;
  std::size_t sent = 0;
  std::string received;
  Deadline started;
};

class Load {
 public:
  Load(const LoadOptions& options, const std::function<void(std::string&)>& append_request)
      : options_(options),
        append_request_(append_request),
        clients_(static_cast<std::size_t>(options.clients)) {}

  Result<LoadResult> run() {
    for (Client& client : clients_) OFFPRINT_TRY(connect(client));
    Deadline begin = SteadyClock::now() + std::chrono::milliseconds(options_.warm_up_ms);
    for (Client& client : clients_) start(client);
    OFFPRINT_TRY(serve_until(begin));
    if (options_.on_start) options_.on_start();
    measuring_ = true;
    begin = SteadyClock::now();
    OFFPRINT_TRY(serve_until(begin + std::chrono::milliseconds(options_.duration_ms)));
    result_.seconds = std::chrono::duration<double>(SteadyClock::now() - begin).count();
    if (options_.on_end) options_.on_end();
    return std::move(result_);
  }

 private:
  Result<> connect(Client& client) {
    OFFPRINT_TRY_ASSIGN(client.socket, connect_to(options_));
    client.received.clear();
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = &client;
    OFFPRINT_ASSERT(::epoll_ctl(epoll_.number(), EPOLL_CTL_ADD, client.socket.number(), &event) ==
                    0);
    return {};
  }

  void start(Client& client) {
    client.to_send.clear();
    client.sent = 0;
    append_request_(client.to_send);
    client.started = SteadyClock::now();
    send_more(client);
  }

  // What the socket does not take at once goes out when it is writable.
  void send_more(Client& client) {
    std::size_t before = client.sent;
    ssize_t sent = ::send(client.socket.number(), client.to_send.data() + client.sent,
                          client.to_send.size() - client.sent, MSG_NOSIGNAL);
    if (sent > 0) client.sent += static_cast<std::size_t>(sent);
    bool waiting = client.sent < client.to_send.size();
    if (!waiting && before == 0) return;
    epoll_event event{};
    event.events = waiting ? EPOLLIN | EPOLLOUT : EPOLLIN;
    event.data.ptr = &client;
    ::epoll_ctl(epoll_.number(), EPOLL_CTL_MOD, client.socket.number(), &event);
  }

  Result<> serve_until(Deadline end) {
    std::array<epoll_event, 256> events{};
    for (Deadline now = SteadyClock::now(); now < end; now = SteadyClock::now()) {
      auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - now).count();
      int count = ::epoll_wait(epoll_.number(), events.data(), static_cast<int>(events.size()),
                               static_cast<int>(std::min<std::int64_t>(left + 1, 100)));
      for (int i = 0; i < count; ++i) {
        const epoll_event& event = events[static_cast<std::size_t>(i)];
        Client& client = *static_cast<Client*>(event.data.ptr);
        if (event.events & EPOLLOUT) send_more(client);
        if (event.events & (EPOLLIN | EPOLLHUP | EPOLLERR)) OFFPRINT_TRY(receive(client));
      }
    }
    return {};
  }

  Result<> receive(Client& client) {
    ssize_t got = ::recv(client.socket.number(), buffer_.data(), buffer_.size(), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    if (got <= 0)
      return replace(client, got == 0 ? "the server closed the connection" : std::strerror(errno));
    client.received.append(buffer_.data(), static_cast<std::size_t>(got));
    Answer answer = parse_answer(client.received);
    if (answer.malformed) return replace(client, "an answer without Content-Length");
    if (answer.size == 0) return {};
    if (!answer.ok) {
      count_error(client.received.substr(0, answer.size));
    } else if (measuring_) {
      ++result_.requests;
      auto took = std::chrono::duration_cast<std::chrono::microseconds>(SteadyClock::now() -
                                                                        client.started);
      result_.latency.add(static_cast<std::uint64_t>(took.count()));
    }
    client.received.erase(0, answer.size);
    start(client);
    return {};
  }

  void count_error(std::string text) {
    ++result_.errors;
    if (result_.first_error.empty()) result_.first_error = std::move(text);
  }

  Result<> replace(Client& client, const std::string& why) {
    count_error(why);
    if (++reconnects_ > kReconnectsMax)
      return fail(Code::kUnavailable, "connections are lost again and again: " + why);
    OFFPRINT_TRY(connect(client));
    start(client);
    return {};
  }

  const LoadOptions& options_;
  const std::function<void(std::string&)>& append_request_;
  Descriptor epoll_{::epoll_create1(EPOLL_CLOEXEC)};
  std::vector<Client> clients_;
  std::array<char, 64 << 10> buffer_{};
  LoadResult result_;
  bool measuring_ = false;
  int reconnects_ = 0;
};

}  // namespace

std::size_t LatencyHistogram::bucket_of(std::uint64_t microseconds) {
  constexpr std::uint64_t kSteps = 1 << kSubBits;
  if (microseconds < kSteps) return microseconds;
  auto shift = static_cast<unsigned>(std::bit_width(microseconds)) - kSubBits - 1;
  return ((shift + 1) << kSubBits) + static_cast<std::size_t>((microseconds >> shift) - kSteps);
}

std::uint64_t LatencyHistogram::top_of(std::size_t bucket) {
  constexpr std::uint64_t kSteps = 1 << kSubBits;
  if (bucket < kSteps) return bucket;
  std::size_t shift = (bucket >> kSubBits) - 1;
  return (((bucket & (kSteps - 1)) + kSteps + 1) << shift) - 1;
}

void LatencyHistogram::add(std::uint64_t microseconds) {
  ++buckets_[std::min(bucket_of(microseconds), buckets_.size() - 1)];
  ++count_;
  max_ = std::max(max_, microseconds);
}

std::uint64_t LatencyHistogram::quantile(double share) const {
  auto wanted = static_cast<std::uint64_t>(std::ceil(share * static_cast<double>(count_)));
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    seen += buckets_[i];
    if (seen >= wanted && seen > 0) return std::min(top_of(i), max_);
  }
  return max_;
}

Result<LoadResult> run_load(const LoadOptions& options,
                            const std::function<void(std::string& to)>& append_request) {
  auto load = std::make_unique<Load>(options, append_request);
  return load->run();
}

}  // namespace offprint
