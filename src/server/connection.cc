#include "server/connection.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/redirect_error.hpp>

#include "base/assert.h"
#include "base/log.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr std::size_t kReadBufferSmall = 4 << 10;
constexpr std::size_t kReadBufferLarge = 64 << 10;
constexpr std::size_t kBodyPiece = 1 << 20;    // handed to a BodyReceiver at once
constexpr std::size_t kCopiedBody = 64 << 10;  // larger answers are not copied behind their head
constexpr std::size_t kAnswersPerSend =
    256 << 10;  // pipelined answers are sent when this much has gathered
constexpr int kLingerMs = 2'000;
constexpr std::size_t kLingerBytes = 1 << 20;
constexpr std::size_t kChunkHead = 10;  // eight hexadecimal digits and CR LF

template <class Counter>
void count(Counter& counter, std::uint64_t by = 1) {
  counter.fetch_add(by, std::memory_order_relaxed);
}

void patch_chunk_head(char* at, std::size_t size) {
  static constexpr char kDigits[] = "0123456789abcdef";
  for (int i = 7; i >= 0; --i, size >>= 4) at[i] = kDigits[size & 15];
  at[8] = '\r';
  at[9] = '\n';
}

}  // namespace

Connection::Connection(std::shared_ptr<IoLoop> loop, Socket socket, HttpHandler& handler,
                       const ConnectionLimits& limits, const std::shared_ptr<TlsCredentials>& tls)
    : loop_(std::move(loop)),
      transport_(std::move(socket), tls),
      handler_(handler),
      limits_(limits),
      parser_(limits.head_bytes) {}

Connection::~Connection() = default;

void Connection::start() {
  error_code ignored;
  transport_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
  transport_.socket().non_blocking(true, ignored);
  loop_->add(*this);
  count(loop_->counters().accepted);
  asio::co_spawn(loop_->executor(), run(shared_from_this()), asio::detached);
}

Connection::Awaitable Connection::run(std::shared_ptr<Connection> self) {
  try {
    co_await self->serve();
  } catch (const std::exception& error) {
    log::error("connection: {}", error.what());
  }
  self->broken_ = true;
  error_code ignored;
  self->transport_.socket().close(ignored);
  self->loop_->remove(*self);
}

Connection::Awaitable Connection::begin_tls() {
  set_deadline(limits_.head_timeout_ms);
  error_code error = co_await transport_.handshake();
  if (timed_out_) count(loop_->counters().timeouts);
  broken_ = broken_ || error;
}

Connection::Awaitable Connection::serve() {
  if (transport_.is_tls()) co_await begin_tls();
  while (!broken_) {
    Step step = advance();
    if (step == Step::kRequest) {
      while (!response_ready_.load(std::memory_order_acquire) && !broken_) {
        if (!send_now()) co_await flush();
        if (response_ready_.load(std::memory_order_acquire) || broken_) break;
        co_await wait_for_event();
      }
      if (broken_) break;
      take_response();
      if (response_.takeover) co_return co_await serve_takeover();
      if (response_.stream) co_await send_stream();
      if (!response_.body.empty()) {  // a large one: it is sent from where it is
        if (!send_now()) co_await flush();
        out_.swap(response_.body);
      }
      if (out_.size() - out_begin_ > kAnswersPerSend && !send_now()) co_await flush();
      finish_request();
      if (keep_alive_) continue;
      step = Step::kClose;
    }
    if (!send_now()) co_await flush();
    if (step == Step::kClose) break;
    if (step == Step::kPassBody) {
      co_await pass_body_piece();
    } else if (!broken_) {
      co_await read_some();
    }
  }
  if (!broken_) co_await linger();
}

// Does what the bytes at hand allow: kRequest was handed over, kPassBody has a piece for the
// receiver, kRead needs more.
Connection::Step Connection::advance() {
  if (closing_ && in_begin_ == in_end_ && !head_seen_) return Step::kClose;
  for (;;) {
    if (parser_.state() == HttpParser::State::kDone && head_seen_) {
      if (receiver_ && !parser_.body().empty()) return Step::kPassBody;
      dispatch();
      return Step::kRequest;
    }
    if (parser_.state() == HttpParser::State::kRefused) {
      refuse();
      return Step::kClose;
    }
    if (!head_seen_ && parser_.state() != HttpParser::State::kHead) {
      if (!begin_body()) return Step::kRequest;
      continue;
    }
    if (receiver_ && head_seen_ && parser_.body().size() >= kBodyPiece) return Step::kPassBody;
    std::size_t used = parser_.feed(std::string_view(in_).substr(in_begin_, in_end_ - in_begin_));
    in_begin_ += used;
    if (used == 0 && (parser_.state() == HttpParser::State::kHead ||
                      parser_.state() == HttpParser::State::kBody)) {
      return Step::kRead;
    }
  }
}

// The head is there: decides where the body goes, and invites it if the client waits for that.
// False: the request was refused, and its answer is ready.
bool Connection::begin_body() {
  head_seen_ = true;
  HttpRequest& request = parser_.request();
  head_only_ = request.method == Method::kHead;
  keep_alive_ = request.keep_alive && !stopping_;
  BodyPlan plan = handler_.plan_body(request);
  if (plan.refusal) {
    if (parser_.state() != HttpParser::State::kDone) keep_alive_ = false;  // its body is not read
    deadline_ = Deadline::max();
    handling_ = true;
    count(loop_->counters().requests);
    response_ = *std::move(plan.refusal);
    response_ready_.store(true, std::memory_order_relaxed);
    return false;
  }
  request.access = std::move(plan.access);
  receiver_ = std::move(plan.receiver);
  parser_.set_body_limit(plan.limit);
  if (request.expects_continue && parser_.state() == HttpParser::State::kBody &&
      in_begin_ == in_end_) {
    out_ += "HTTP/1.1 100 Continue\r\n\r\n";
  }
  return true;
}

void Connection::dispatch() {
  deadline_ = Deadline::max();
  handling_ = true;
  HttpRequest& request = parser_.request();
  request.body = std::move(parser_.body());
  response_ready_.store(false, std::memory_order_relaxed);
  count(loop_->counters().requests);
  handler_.handle(request, receiver_, Responder(shared_from_this()));
}

void Connection::refuse() {
  keep_alive_ = false;
  head_only_ = false;
  count(loop_->counters().requests);
  response_ = error_response(parser_.error_status(), "INVALID", parser_.error_text());
  take_response();
}

void Connection::respond(Response response) {
  response_ = std::move(response);
  response_ready_.store(true, std::memory_order_release);
  // On the loop's own thread the coroutine is usually not waiting yet: it looks at the flag itself.
  if (loop_->is_current() && !waiter_) return;
  loop_->complete(shared_from_this());
}

std::string Connection::peer_address() const {
  boost::system::error_code error;
  const auto endpoint = transport_.socket().remote_endpoint(error);
  return error ? "" : endpoint.address().to_string();
}

void Connection::wake() {
  if (!woken_.exchange(true, std::memory_order_acq_rel)) loop_->complete(shared_from_this());
}

void Connection::on_completion() { resume(); }

void Connection::resume() {
  if (!waiter_) return;
  EventHandler waiter = std::move(*waiter_);
  waiter_.reset();
  std::move(waiter)();
}

// Until somebody calls respond() or wake(), the tick of a stream, or abort(). May return for no
// reason.
Connection::Awaitable Connection::wait_for_event() {
  auto initiate = [this](EventHandler handler) { waiter_.emplace(std::move(handler)); };
  Token token;
  co_await asio::async_initiate<Token, void()>(initiate, token);
}

// Puts the answer into out_; of a stream or a large body only the head.
void Connection::take_response() {
  if (response_.close || stopping_) keep_alive_ = false;
  if (response_.status >= 500) {
    count(loop_->counters().responses_5xx);
  } else if (response_.status >= 400) {
    count(loop_->counters().responses_4xx);
  }
  if (response_.stream) {
    chunk_framing_ = !response_.stream_length && parser_.request().minor_version > 0;
    if (!chunk_framing_ && !response_.stream_length) keep_alive_ = false;
    write_head(response_, response_.stream_length);
    if (head_only_) response_.stream.reset();
    return;
  }
  if (response_.takeover) return write_head(response_, std::nullopt);
  write_head(response_, response_.body.size());
  if (head_only_ || response_.body.size() <= kCopiedBody) {
    if (!head_only_) out_ += response_.body;
    response_.body.clear();
  }
}

void Connection::write_head(const Response& response, std::optional<std::uint64_t> length) {
  out_ += "HTTP/1.1 ";
  append_integer(out_, response.status);
  out_ += ' ';
  out_ += status_reason(response.status);
  out_ += "\r\nDate: ";
  out_ += loop_->date();
  if (!response.content_type.empty()) {
    out_ += "\r\nContent-Type: ";
    out_ += response.content_type;
  }
  if (length && response.status != 204) {
    out_ += "\r\nContent-Length: ";
    append_unsigned(out_, *length);
  } else if (response.stream && chunk_framing_) {
    out_ += "\r\nTransfer-Encoding: chunked";
  }
  if (response.takeover) {
    // Its fields say what the connection becomes.
  } else if (!keep_alive_) {
    out_ += "\r\nConnection: close";
  } else if (parser_.request().minor_version == 0) {
    out_ += "\r\nConnection: keep-alive";
  }
  out_ += "\r\n";
  out_ += response.headers;
  out_ += "\r\n";
}

void Connection::finish_request() {
  handling_ = false;
  idle_since_ = SteadyClock::now();
  response_.body = {};
  response_.headers.clear();
  response_.stream.reset();
  response_.stream_length.reset();
  receiver_.reset();
  head_seen_ = false;
  head_deadline_ = Deadline::max();
  parser_.reset();
}

Connection::Awaitable Connection::send_stream() {
  std::unique_ptr<BodyStream> stream = std::move(response_.stream);
  stream_ = stream.get();
  count(loop_->counters().streams_open);
  stream->start(shared_from_this());
  BodyStream::State state = BodyStream::State::kMore;
  while (!broken_) {
    woken_.exchange(false, std::memory_order_acq_rel);
    if (stopping_) stream->stop();
    std::size_t head_at = out_.size();
    if (chunk_framing_) out_.append(kChunkHead, '0');
    std::size_t data_at = out_.size();
    state = stream->fill(out_);
    if (state == BodyStream::State::kFailed) broken_ = true;
    if (out_.size() == data_at) {
      out_.resize(head_at);
    } else if (chunk_framing_) {
      patch_chunk_head(out_.data() + head_at, out_.size() - data_at);
      out_ += "\r\n";
    }
    if (state == BodyStream::State::kEnd && chunk_framing_) out_ += "0\r\n\r\n";
    if (!broken_ && !send_now()) co_await flush();
    if (state == BodyStream::State::kEnd) break;
    if (state == BodyStream::State::kWait && !broken_ && !woken_.load(std::memory_order_acquire)) {
      give_room_back();
      co_await wait_for_event();
    }
  }
  stream_ = nullptr;
  loop_->counters().streams_open.fetch_sub(1, std::memory_order_relaxed);
}

// Gives a full piece of the body to its receiver and waits until that can take more.
Connection::Awaitable Connection::pass_body_piece() {
  deadline_ = Deadline::max();
  receiver_->receive(std::exchange(parser_.body(), {}), shared_from_this());
  while (receiver_->busy() && !broken_) {
    woken_.exchange(false, std::memory_order_acq_rel);
    if (!receiver_->busy()) break;
    co_await wait_for_event();
  }
}

void Connection::make_room() {
  if (in_begin_ == in_end_) {
    in_begin_ = in_end_ = 0;
    bool large = parser_.state() == HttpParser::State::kBody;
    std::size_t wanted = large ? kReadBufferLarge : kReadBufferSmall;
    if (in_.size() < wanted || (!large && in_.size() > kReadBufferSmall)) {
      std::string().swap(in_);  // an assignment would keep the memory
      in_.resize(wanted);
    }
    return;
  }
  if (in_end_ < in_.size()) return;
  if (in_begin_ > 0) {
    std::memmove(in_.data(), in_.data() + in_begin_, in_end_ - in_begin_);
    in_end_ -= in_begin_;
    in_begin_ = 0;
    return;
  }
  in_.resize(in_.size() * 2);  // a head larger than the buffer; the parser refuses it before long
}

Connection::Awaitable Connection::read_some() {
  if (parser_.state() == HttpParser::State::kBody) {
    set_deadline(limits_.body_timeout_ms);
  } else if (in_begin_ == in_end_) {
    set_deadline(limits_.idle_timeout_ms);
  } else {
    if (head_deadline_ == Deadline::max()) {
      head_deadline_ = SteadyClock::now() + std::chrono::milliseconds(limits_.head_timeout_ms);
    }
    deadline_ = head_deadline_;
  }
  make_room();
  error_code error;
  asio::mutable_buffer room(in_.data() + in_end_, in_.size() - in_end_);
  std::size_t size = co_await transport_.read_some(room, error);
  in_end_ += size;
  count(loop_->counters().bytes_in, size);
  if (!error) co_return;
  if (timed_out_) {
    count(loop_->counters().timeouts);
    if (in_begin_ != in_end_ || head_seen_) {
      response_ = error_response(408, "TIMEOUT", "the request took too long to arrive");
      keep_alive_ = false;
      head_only_ = false;
      take_response();
      send_now();
    }
  }
  broken_ = true;
}

// Sends what the socket takes at once; true when all of it went out.
bool Connection::send_now() {
  while (out_begin_ < out_.size() && !broken_) {
    ssize_t sent = transport_.send_now(out_.data() + out_begin_, out_.size() - out_begin_);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) return false;
      broken_ = true;
      break;
    }
    out_begin_ += static_cast<std::size_t>(sent);
    count(loop_->counters().bytes_out, static_cast<std::uint64_t>(sent));
  }
  out_begin_ = 0;
  out_.clear();
  if (!stream_) give_room_back();
  return true;
}

// Of a large answer, when nothing waits to be sent.
void Connection::give_room_back() {
  // To assign an empty string would keep the memory.
  if (out_.empty() && out_.capacity() > 2 * kReadBufferLarge) std::string().swap(out_);
}

Connection::Awaitable Connection::flush() {
  while (!send_now() && !broken_) {
    set_deadline(limits_.write_timeout_ms);
    error_code error;
    co_await transport_.wait_writable(error);
    if (error) {
      if (timed_out_) count(loop_->counters().timeouts);
      broken_ = true;
    }
  }
  deadline_ = Deadline::max();
}

// Closing with unread bytes would reset the connection, and the client might never see the answer:
// says that nothing more comes, then drops what still arrives, for a while.
Connection::Awaitable Connection::linger() {
  error_code error;
  transport_.close_sending(error);
  set_deadline(kLingerMs);
  in_.resize(std::max(in_.size(), kReadBufferSmall));
  std::size_t dropped = 0;
  while (!error && dropped < kLingerBytes) {
    dropped += co_await transport_.socket().async_read_some(asio::buffer(in_),
                                                            asio::redirect_error(Token(), error));
  }
}

void Connection::set_deadline(int timeout_ms) {
  deadline_ = SteadyClock::now() + std::chrono::milliseconds(timeout_ms);
}

void Connection::tick(Deadline now) {
  if (now >= deadline_) {
    timed_out_ = true;
    deadline_ = Deadline::max();
    error_code ignored;
    transport_.socket().cancel(ignored);
    return;
  }
  if (stream_ || takeover_) resume();
}

void Connection::stop_when_idle(Deadline idle_since) {
  stopping_ = true;
  if (stream_ || takeover_) {
    resume();
    return;
  }
  bool idle = !handling_ && !head_seen_ && in_begin_ == in_end_ && out_begin_ == out_.size();
  if (!idle || idle_since_ > idle_since) return;
  closing_ = true;
  error_code ignored;
  transport_.socket().cancel(ignored);
}

void Connection::abort() {
  broken_ = true;
  error_code ignored;
  transport_.socket().close(ignored);
  resume();
  resume_reader();
}

}  // namespace offprint::server
