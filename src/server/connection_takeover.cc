// Connections that go on with another protocol. Two coroutines then: one writes what the protocol
// has to say, the other reads while the protocol wants to hear.
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "base/log.h"
#include "server/connection.h"

namespace offprint::server {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr std::size_t kRoomSmall = 4 << 10;
constexpr std::size_t kRoomLarge = 64 << 10;
constexpr int kGoodbyeMs = 2'000;  // for the client to close its side
constexpr std::size_t kGoodbyeBytes = 1 << 20;

}  // namespace

Connection::Awaitable Connection::serve_takeover() {
  takeover_ = std::move(response_.takeover);
  loop_->counters().streams_open.fetch_add(1, std::memory_order_relaxed);
  parser_.reset();
  response_ = Response();
  takeover_->start(shared_from_this());
  if (!send_now()) co_await flush();
  reading_ = true;
  asio::co_spawn(loop_->executor(), read_for_takeover(shared_from_this()), asio::detached);
  BodyStream::State state = BodyStream::State::kMore;
  while (!broken_ && state != BodyStream::State::kEnd) {
    woken_.exchange(false, std::memory_order_acq_rel);
    if (stopping_) takeover_->stop();
    state = takeover_->fill(out_);
    if (state == BodyStream::State::kFailed) broken_ = true;
    resume_reader();
    if (!broken_ && !send_now()) co_await flush();
    if (state == BodyStream::State::kWait && !broken_ && !woken_.load(std::memory_order_acquire))
      co_await wait_for_event();
  }
  takeover_ended_ = true;
  error_code ignored;
  if (broken_) {
    transport_.socket().close(ignored);
  } else {  // so that the client sees the last words, see linger()
    transport_.close_sending(ignored);
    set_deadline(kGoodbyeMs);
  }
  resume_reader();
  while (reading_) co_await wait_for_event();
  takeover_.reset();
  loop_->counters().streams_open.fetch_sub(1, std::memory_order_relaxed);
}

Connection::Awaitable Connection::read_for_takeover(std::shared_ptr<Connection> self) {
  try {
    co_await self->feed_takeover();
  } catch (const std::exception& error) {
    log::error("connection: {}", error.what());
  }
  self->broken_ = true;
  self->reading_ = false;
  self->resume();
}

Connection::Awaitable Connection::feed_takeover() {
  std::size_t dropped = 0;
  while (!broken_ && dropped < kGoodbyeBytes) {
    bool filled = in_end_ == in_.size();
    if (takeover_ended_) {
      dropped += in_end_ - in_begin_;
    } else if (in_begin_ < in_end_) {
      takeover_->receive(std::string_view(in_).substr(in_begin_, in_end_ - in_begin_));
      woken_.store(true, std::memory_order_release);
      in_begin_ = in_end_ = 0;
      resume();
    }
    in_begin_ = in_end_ = 0;
    while (!broken_ && !takeover_ended_ && !takeover_->wants_more()) co_await wait_to_read();
    if (broken_) break;
    std::size_t wanted = filled ? kRoomLarge : kRoomSmall;
    if (in_.size() != wanted) {
      std::string().swap(in_);  // an assignment would keep the memory
      in_.resize(wanted);
    }
    error_code error;
    asio::mutable_buffer room(in_.data(), in_.size());
    in_end_ = co_await transport_.read_some(room, error);
    loop_->counters().bytes_in.fetch_add(in_end_, std::memory_order_relaxed);
    if (error) break;
  }
}

Connection::Awaitable Connection::wait_to_read() {
  auto initiate = [this](EventHandler handler) { reader_.emplace(std::move(handler)); };
  Token token;
  co_await asio::async_initiate<Token, void()>(initiate, token);
}

void Connection::resume_reader() {
  if (!reader_) return;
  EventHandler reader = std::move(*reader_);
  reader_.reset();
  std::move(reader)();
}

}  // namespace offprint::server
