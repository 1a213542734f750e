#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/clock.h"
#include "server/http_message.h"
#include "server/http_parser.h"
#include "server/io_loop.h"
#include "server/transport.h"

namespace offprint::server {

struct ConnectionLimits {
  std::size_t head_bytes = 16 << 10;
  int head_timeout_ms = 10'000;   // from the first byte of a head to its last; a TLS handshake
  int idle_timeout_ms = 75'000;   // between requests
  int body_timeout_ms = 30'000;   // without a byte of a body that was announced
  int write_timeout_ms = 30'000;  // without the client taking a byte of an answer
};

// One client's connection: reads requests, hands them to the handler one after the other (so what
// is pipelined runs and is answered in order), writes answers. Requests that are answered at once
// share one send. Thread: its loop's, except respond() and wake(). Lives as long as its coroutine
// or a handler holds it.
class Connection final : public Client,
                         public Completion,
                         public std::enable_shared_from_this<Connection> {
 public:
  using Executor = IoLoop::Executor;
  using Socket = Transport::Socket;

  // `tls` may be empty: plain HTTP.
  Connection(std::shared_ptr<IoLoop> loop, Socket socket, HttpHandler& handler,
             const ConnectionLimits& limits, const std::shared_ptr<TlsCredentials>& tls = {});
  ~Connection() override;

  // Starts serving. Thread: the loop's.
  void start();

  void respond(Response response) override;
  void wake() override;
  std::string peer_address() const override;
  void on_completion() override;

  // Once a second: deadlines, and streams that want to be asked again.
  void tick(Deadline now);
  // From now on answers are the last ones on their connection. Closes now when it is between
  // requests, and has been since then.
  void stop_when_idle(Deadline idle_since);
  // Closes now.
  void abort();

  std::shared_ptr<Connection> shared() { return shared_from_this(); }
  void set_loop_index(std::size_t index) { loop_index_ = index; }
  std::size_t loop_index() const { return loop_index_; }

 private:
  using Awaitable = boost::asio::awaitable<void, Executor>;
  using Token = boost::asio::use_awaitable_t<Executor>;
  using EventHandler = boost::asio::async_result<Token, void()>::handler_type;
  enum class Step { kRead, kPassBody, kRequest, kClose };

  static Awaitable run(std::shared_ptr<Connection> self);
  Awaitable serve();
  Awaitable begin_tls();
  Awaitable read_some();
  Awaitable flush();
  Awaitable send_stream();
  Awaitable serve_takeover();
  static Awaitable read_for_takeover(std::shared_ptr<Connection> self);
  Awaitable feed_takeover();
  Awaitable wait_to_read();
  Awaitable linger();
  Awaitable wait_for_event();
  Awaitable pass_body_piece();

  Step advance();
  bool begin_body();
  void dispatch();
  void refuse();
  void make_room();
  bool send_now();
  void give_room_back();
  void write_head(const Response& response, std::optional<std::uint64_t> length);
  void take_response();
  void finish_request();
  void set_deadline(int timeout_ms);
  void resume();
  void resume_reader();

  const std::shared_ptr<IoLoop> loop_;
  Transport transport_;
  HttpHandler& handler_;
  const ConnectionLimits& limits_;
  std::size_t loop_index_ = 0;

  HttpParser parser_;
  std::string in_;  // received bytes are [in_begin_, in_end_)
  std::size_t in_begin_ = 0;
  std::size_t in_end_ = 0;
  std::string out_;  // answers not yet sent are [out_begin_, end)
  std::size_t out_begin_ = 0;
  bool head_seen_ = false;  // begin_body() was done for the current request
  bool head_only_ = false;  // the current request is a HEAD
  bool keep_alive_ = true;
  bool chunk_framing_ = false;
  std::shared_ptr<BodyReceiver> receiver_;

  Response response_;  // set by respond(), read once response_ready_
  std::atomic<bool> response_ready_{false};
  std::atomic<bool> woken_{false};
  bool handling_ = false;         // a request was handed over and is not answered on the wire yet
  BodyStream* stream_ = nullptr;  // the one being sent
  std::unique_ptr<Takeover> takeover_;  // speaks on this connection now …
  bool takeover_ended_ = false;         // … or did
  bool reading_ = false;                // its second coroutine runs, the one that reads
  std::optional<EventHandler> reader_;  // that one, while it must not read
  std::optional<EventHandler> waiter_;  // the coroutine, while it waits for another thread

  Deadline deadline_ = Deadline::max();       // when tick() cuts what is being waited for
  Deadline head_deadline_ = Deadline::max();  // of the head that has begun to arrive
  bool timed_out_ = false;
  Deadline idle_since_ = SteadyClock::now();
  bool stopping_ = false;  // answers say so
  bool closing_ = false;   // nothing more is taken
  bool broken_ = false;    // nothing more can be read or written
};

}  // namespace offprint::server
