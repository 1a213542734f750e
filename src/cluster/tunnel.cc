#include "cluster/tunnel.h"

#include <mutex>

#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

namespace offprint::cluster {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using Awaitable = asio::awaitable<void>;

constexpr std::size_t kUntakenMax = 1 << 20;  // then nothing more is read
constexpr std::size_t kReadSize = 32 << 10;

// Lives as long as the tunnel or one of its coroutines.
class Pipe : public std::enable_shared_from_this<Pipe> {
 public:
  Pipe(asio::io_context& io, std::shared_ptr<Link> link, std::function<void()> ended)
      : io_(io), link_(std::move(link)), ended_(std::move(ended)) {
    auto left = link_->buffer.cdata();
    come_.assign(static_cast<const char*>(left.data()), left.size());
    link_->buffer.clear();
    link_->bottom().expires_never();
  }

  void start(std::function<void()> changed) {
    {
      std::lock_guard lock(calling_);
      changed_ = std::move(changed);
    }
    {
      std::lock_guard lock(mutex_);
      reading_ = true;
    }
    asio::post(io_, [self = shared_from_this()] { self->spawn(&Pipe::read_all); });
  }

  void close() {
    {
      std::lock_guard lock(calling_);  // nobody is within changed_ then
      changed_ = nullptr;
    }
    asio::post(io_, [self = shared_from_this()] {
      self->link_->bottom().close();
      self->end();
    });
  }

  void send(std::string_view bytes) {
    std::lock_guard lock(mutex_);
    to_send_ += bytes;
    if (std::exchange(writing_, true)) return;
    asio::post(io_, [self = shared_from_this()] { self->spawn(&Pipe::write_all); });
  }
  std::size_t unsent() const {
    std::lock_guard lock(mutex_);
    return to_send_.size() + sending_;
  }

  bool take(std::string& to) {
    std::lock_guard lock(mutex_);
    to += come_;
    come_.clear();
    if (at_end_) return false;
    if (!std::exchange(reading_, true))
      asio::post(io_, [self = shared_from_this()] { self->spawn(&Pipe::read_all); });
    return true;
  }

 private:
  void spawn(Awaitable (*work)(std::shared_ptr<Pipe>)) {
    asio::co_spawn(io_, work(shared_from_this()), asio::detached);
  }

  static Awaitable read_all(std::shared_ptr<Pipe> self) {
    error_code error;
    std::string room(kReadSize, '\0');
    while (!error) {
      auto token = asio::redirect_error(asio::use_awaitable, error);
      std::size_t got = co_await self->link_->with_stream(
          [&](auto& stream) { return stream.async_read_some(asio::buffer(room), token); });
      bool is_full = false;
      {
        std::lock_guard lock(self->mutex_);
        self->come_.append(room, 0, got);
        self->at_end_ = static_cast<bool>(error);
        is_full = self->come_.size() >= kUntakenMax && !error;
        if (is_full) self->reading_ = false;
      }
      self->tell();
      if (is_full) co_return;
    }
    self->link_->bottom().close();
    self->end();
  }

  static Awaitable write_all(std::shared_ptr<Pipe> self) {
    error_code error;
    std::string bytes;
    while (!error) {
      {
        std::lock_guard lock(self->mutex_);
        bytes = std::exchange(self->to_send_, {});
        self->sending_ = bytes.size();
        if (bytes.empty()) self->writing_ = false;
      }
      self->tell();
      if (bytes.empty()) co_return;
      auto token = asio::redirect_error(asio::use_awaitable, error);
      co_await self->link_->with_stream(
          [&](auto& stream) { return asio::async_write(stream, asio::buffer(bytes), token); });
    }
    self->link_->bottom().close();  // the reader ends
  }

  void tell() {
    std::lock_guard lock(calling_);
    if (changed_) changed_();
  }
  void end() {
    if (ended_) std::exchange(ended_, nullptr)();
  }

  asio::io_context& io_;
  const std::shared_ptr<Link> link_;
  std::function<void()> ended_;  // of the io_context's thread

  std::recursive_mutex calling_;   // while changed_ is called; it may end the tunnel
  std::function<void()> changed_;  // guarded by calling_

  mutable std::mutex mutex_;
  // State below is protected by mutex_.
  std::string come_, to_send_;
  std::size_t sending_ = 0;
  bool reading_ = false, writing_ = false, at_end_ = false;
};

class TunnelImpl final : public Tunnel {
 public:
  explicit TunnelImpl(std::shared_ptr<Pipe> pipe) : pipe_(std::move(pipe)) {}
  ~TunnelImpl() override { pipe_->close(); }
  void start(std::function<void()> changed) override { pipe_->start(std::move(changed)); }
  void send(std::string_view bytes) override { pipe_->send(bytes); }
  std::size_t unsent() const override { return pipe_->unsent(); }
  bool take(std::string& to) override { return pipe_->take(to); }

 private:
  const std::shared_ptr<Pipe> pipe_;
};

}  // namespace

std::unique_ptr<Tunnel> make_tunnel(asio::io_context& io, std::shared_ptr<Link> link,
                                    std::function<void()> ended) {
  return std::make_unique<TunnelImpl>(
      std::make_shared<Pipe>(io, std::move(link), std::move(ended)));
}

}  // namespace offprint::cluster
