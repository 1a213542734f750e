#include "server/hrana_socket.h"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>

#include "server/authenticator.h"
#include "server/errors.h"
#include "server/forwarding.h"
#include "server/hrana_socket_work.h"
#include "server/hrana_stream.h"
#include "server/json_writer.h"
#include "server/websocket.h"

namespace offprint::server {
namespace hrana {
namespace {

constexpr std::size_t kStreamsMax = 512;   // of a connection
constexpr std::size_t kCursorsMax = 8;     // of a connection
constexpr std::size_t kInFlightMax = 128;  // requests without an answer; then it is not read
constexpr std::size_t kRunningMax = 8;     // of them at work
constexpr std::size_t kInFlightBytesMax = 4 << 20;    // of them together, but for the last one
constexpr std::size_t kStoredBytesMax = 1 << 20;      // of all stored SQL of a connection
constexpr std::size_t kUnsentMax = 1 << 20;           // answers beyond this let nothing more begin
constexpr auto kHelloMax = std::chrono::seconds(10);  // from the start to a hello that is accepted
constexpr std::size_t kFetchBytesMax = 1 << 20;       // of entries, in one answer

using Kind = ClientMessage::Kind;

class HranaSocket final : public SocketProtocol {
 public:
  HranaSocket(Service& service, const database::DatabaseName& name, const ReadMode& mode,
              std::string_view authorization)
      : service_(service),
        name_(name),
        mode_(mode),
        authorization_(authorization),
        mailbox_(std::make_shared<SocketMailbox>(service)) {}

  ~HranaSocket() override {
    mailbox_->close();
    for (auto& [id, stream] : streams_) release(stream);
  }

  void start(std::shared_ptr<Client> client) override { mailbox_->open(std::move(client)); }

  std::optional<Close> receive(std::string& text) override {
    bool is_json = false;
    Result<ClientMessage> message = parse_message(text, is_json);
    if (!is_json) return Close{WebSocketStatus::kBadPayload, message.error().message()};
    if (!message) return Close{WebSocketStatus::kPolicy, message.error().message()};
    if (message->kind == Kind::kHello) {
      greet(message->jwt);
      return std::nullopt;
    }
    if (!greeted_) return Close{WebSocketStatus::kPolicy, "'hello' comes before all requests"};
    take(*std::move(message));
    return std::nullopt;
  }

  bool wants_more() const override {
    return waiting_ + running_ + unsent_.size() < kInFlightMax &&
           in_flight_bytes_ < kInFlightBytesMax && unsent_bytes_ < kUnsentMax;
  }

  bool next(std::string& message) override {
    for (FinishedWork& work : mailbox_->take()) finish(std::move(work));
    begin_ready();
    if (unsent_.empty()) return false;
    message = std::move(unsent_.front());
    unsent_.pop_front();
    unsent_bytes_ -= message.size();
    return true;
  }

  bool is_busy() const override { return waiting_ + running_ + unsent_.size() > 0; }

  std::optional<Close> overdue(Deadline now) override {
    if (greeted_ && !refusal_) {
      bool counts = access_->counts(unix_time_ms() / 1000) && access_->allows_sql(name_);
      if (counts || service_.authenticator == nullptr) return std::nullopt;
      return Close{WebSocketStatus::kPolicy, "the token has expired, or was revoked"};
    }
    if (now < hello_until_) return std::nullopt;
    return Close{WebSocketStatus::kPolicy, "no 'hello' that could be accepted came in time"};
  }

 private:
  struct Stream {
    std::shared_ptr<database::HeldTransaction> held;  // while nothing runs
    std::deque<ClientMessage> waiting;
    bool running = false;
  };
  struct Cursor {
    std::int32_t stream_id = 0;
    std::shared_ptr<CursorEntries> entries;  // once it is open
  };

  void greet(const std::optional<std::string>& jwt) {
    greeted_ = true;
    Result<std::shared_ptr<const Access>> access =
        authenticate(service_, name_, jwt, authorization_);
    refusal_.reset();
    if (access) {
      access_ = *std::move(access);
      return send(R"({"type":"hello_ok"})");
    }
    refusal_ = std::move(access).error();
    std::string text = R"({"type":"hello_error","error":)";
    append_hrana_error(text, *refusal_);
    send(text + '}');
  }

  // Requests on streams wait there for their turn; the others are answered now.
  void take(ClientMessage message) {
    std::int32_t request_id = message.request_id;
    if (refusal_) return send(response_error(request_id, *refusal_));
    if (Result<> queued = enqueue(message); !queued)
      send(response_error(request_id, queued.error()));
  }

  Result<> enqueue(ClientMessage& message) {
    if (message.is_of_connection()) return change_stored(message);
    if (message.kind == Kind::kOpenStream) return open_stream(message);
    if (message.kind == Kind::kFetchCursor || message.kind == Kind::kCloseCursor) {
      auto cursor = cursors_.find(message.cursor_id);
      if (cursor == cursors_.end()) return without_cursor(message);
      message.stream_id = cursor->second.stream_id;
    }
    auto stream = streams_.find(message.stream_id);
    if (stream == streams_.end()) return without_stream(message);
    if (message.kind == Kind::kOpenCursor) OFFPRINT_TRY(reserve_cursor(message));
    if (message.kind == Kind::kRequest || message.kind == Kind::kOpenCursor)
      OFFPRINT_TRY(resolve(message.request, stored_));
    ++waiting_;
    in_flight_bytes_ += message.bytes;
    stream->second.waiting.push_back(std::move(message));
    if (stream->second.waiting.size() == 1 && !stream->second.running)
      ready_.push_back(stream->first);
    return {};
  }

  Result<> open_stream(const ClientMessage& message) {
    if (streams_.contains(message.stream_id))
      return fail(Code::kInvalid,
                  "stream " + std::to_string(message.stream_id) + " is open already");
    if (streams_.size() >= kStreamsMax)
      return fail(Code::kBusy, "TOO_MANY_STREAMS: too many streams are open on this connection");
    streams_[message.stream_id];
    acknowledge(message, R"("open_stream")");
    return {};
  }

  Result<> without_stream(const ClientMessage& message) {
    if (message.kind != Kind::kCloseStream)
      return fail(Code::kInvalid, "stream " + std::to_string(message.stream_id) + " is not open");
    acknowledge(message, R"("close_stream")");
    return {};
  }

  Result<> without_cursor(const ClientMessage& message) {
    if (message.kind != Kind::kCloseCursor)
      return fail(Code::kInvalid, "cursor " + std::to_string(message.cursor_id) + " is not open");
    acknowledge(message, R"("close_cursor")");
    return {};
  }

  Result<> reserve_cursor(const ClientMessage& message) {
    if (cursors_.contains(message.cursor_id))
      return fail(Code::kInvalid,
                  "cursor " + std::to_string(message.cursor_id) + " is open already");
    if (cursors_.size() >= kCursorsMax)
      return fail(Code::kBusy, "TOO_MANY_CURSORS: too many cursors are open on this connection");
    cursors_[message.cursor_id].stream_id = message.stream_id;
    return {};
  }

  Result<> change_stored(ClientMessage& message) {
    std::size_t bytes = message.request.source.sql.size();
    for (const auto& [id, text] : stored_) bytes += text.size();
    if (message.request.kind == StreamRequest::Kind::kStoreSql && bytes > kStoredBytesMax)
      return fail(Code::kTooLarge, "SQL_STORE_TOO_LARGE: too much SQL is stored already");
    OFFPRINT_TRY(resolve(message.request, stored_));
    AnswerText answer;
    answer.text = response_head(message.request_id);
    OFFPRINT_TRY(append_response(answer, message.request, nullptr, kFetchBytesMax));
    answer.text += kResponseTail;
    send(std::move(answer.text));
    return {};
  }

  void begin_ready() {
    while (!ready_.empty() && running_ < kRunningMax && unsent_bytes_ < kUnsentMax) {
      std::int32_t id = ready_.front();
      ready_.pop_front();
      begin(id, streams_.at(id));
    }
  }

  // Runs the stream's next request.
  void begin(std::int32_t id, Stream& stream) {
    ClientMessage message = std::move(stream.waiting.front());
    stream.waiting.pop_front();
    --waiting_;
    stream.running = true;
    ++running_;
    switch (message.kind) {
      case Kind::kCloseStream:
        return close_stream(message);
      case Kind::kFetchCursor:
        return fetch(message);
      case Kind::kCloseCursor:
        cursors_.erase(message.cursor_id);
        acknowledge(message, R"("close_cursor")");
        return ended(id, message.bytes);
      default:
        break;
    }
    if (!message.request.runs_sql() && !stream.held) {  // get_autocommit: nothing is open
      acknowledge(message, R"("get_autocommit","is_autocommit":true)");
      return ended(id, message.bytes);
    }
    std::uint64_t index = message.request.replication_index;
    auto held = std::exchange(stream.held, nullptr);
    ReadMode mode = mode_;
    mode.rights = access_->sql_rights(name_);
    submit(service_, name_, held, mode, index,
           socket_request(service_, std::move(message), mailbox_));
  }

  void close_stream(const ClientMessage& message) {
    auto found = streams_.find(message.stream_id);
    release(found->second);
    waiting_ -= found->second.waiting.size();
    --running_;
    in_flight_bytes_ -= message.bytes;
    for (const ClientMessage& late : found->second.waiting) {
      in_flight_bytes_ -= late.bytes;
      send(response_error(late.request_id, Error(Code::kInvalid, "the stream was closed")));
    }
    std::erase_if(cursors_,
                  [&](const auto& cursor) { return cursor.second.stream_id == message.stream_id; });
    streams_.erase(found);
    acknowledge(message, R"("close_stream")");
  }

  void fetch(const ClientMessage& message) {
    auto found = cursors_.find(message.cursor_id);
    if (found == cursors_.end() || !found->second.entries) {
      send(response_error(message.request_id, Error(Code::kInvalid, "the cursor is not open")));
      return ended(message.stream_id, message.bytes);
    }
    auto read = [entries = found->second.entries, mailbox = mailbox_, id = message.request_id,
                 bytes = message.bytes, count_max = message.count_max,
                 stream_id = message.stream_id] {
      FinishedWork work;
      work.bytes = bytes;
      work.stream_id = stream_id;
      work.message = response_head(id) + R"({"type":"fetch_cursor","entries":[)";
      bool done = false;
      Result<> got = entries->next(count_max, kFetchBytesMax, work.message, done);
      work.message += done ? "],\"done\":true}" : "],\"done\":false}";
      work.message += kResponseTail;
      if (!got) work.message = response_error(id, got.error());
      mailbox->post(std::move(work));
    };
    if (!found->second.entries->must_block()) return read();
    service_.store.post_blocking(std::move(read));
  }

  void finish(FinishedWork work) {
    send(std::move(work.message));
    Stream& stream = streams_.at(work.stream_id);
    if (work.held) stream.held = std::move(work.held);
    auto cursor = cursors_.find(work.cursor_id);
    if (work.cursor && cursor != cursors_.end()) cursor->second.entries = std::move(work.cursor);
    ended(work.stream_id, work.bytes);
  }

  // The stream's request has ended, which was so long.
  void ended(std::int32_t id, std::size_t bytes) {
    --running_;
    in_flight_bytes_ -= bytes;
    Stream& stream = streams_.at(id);
    stream.running = false;
    if (!stream.waiting.empty()) ready_.push_back(id);
  }

  void release(Stream& stream) {
    if (stream.held) service_.store.release(std::exchange(stream.held, nullptr));
  }

  // `response`: what follows "type".
  void acknowledge(const ClientMessage& message, std::string_view response) {
    send(response_head(message.request_id) + "{\"type\":" + std::string(response) + "}}");
  }

  void send(std::string message) {
    unsent_bytes_ += message.size();
    unsent_.push_back(std::move(message));
  }

  Service& service_;
  const database::DatabaseName name_;
  const ReadMode mode_;
  const std::string authorization_;       // of the handshake
  std::shared_ptr<const Access> access_;  // of the last hello that was accepted
  const std::shared_ptr<SocketMailbox> mailbox_;
  const Deadline hello_until_ = SteadyClock::now() + kHelloMax;
  bool greeted_ = false;
  std::optional<Error> refusal_;  // of the last hello
  StoredSql stored_;
  std::map<std::int32_t, Stream> streams_;
  std::map<std::int32_t, Cursor> cursors_;
  std::deque<std::int32_t> ready_;   // streams with waiting requests of which none runs
  std::size_t waiting_ = 0;          // requests, in all streams
  std::size_t running_ = 0;          // one a stream at most
  std::size_t in_flight_bytes_ = 0;  // of both
  std::deque<std::string> unsent_;
  std::size_t unsent_bytes_ = 0;
};

// The best that both speak; an empty one when none was offered, which means hrana1. Nothing: there
// is none.
std::optional<std::string_view> choose(const std::vector<std::string_view>& offered) {
  if (offered.empty()) return std::string_view();
  for (std::string_view spoken : {"hrana3", "hrana2", "hrana1"}) {
    if (std::find(offered.begin(), offered.end(), spoken) != offered.end()) return spoken;
  }
  return std::nullopt;
}

}  // namespace

Result<std::shared_ptr<const Access>> authenticate(const Service& service,
                                                   const database::DatabaseName& name,
                                                   std::optional<std::string_view> jwt,
                                                   std::string_view authorization) {
  if (service.authenticator == nullptr) return Access::unlimited();
  auto access = jwt && !jwt->empty() ? service.authenticator->authenticate(*jwt)
                                     : service.authenticator->authenticate_field(authorization);
  if (access && !(*access)->allows_sql(name)) {
    return fail(Code::kForbidden,
                "TOKEN_FORBIDS: the token does not allow SQL on database '" + name.text() + "'");
  }
  return access;
}

}  // namespace hrana

namespace {

Response open_here(Service& service, const database::DatabaseName& name, const HttpRequest& request,
                   std::string_view subprotocol) {
  Result<ReadMode> mode = read_mode(service, name, request);
  if (!mode) return plain_error(mode.error());
  // Who must bring a token is told nothing before.
  Result<database::DatabaseInfo> info = service.store.info(name);
  if (!info && service.authenticator == nullptr) return plain_error(info.error());
  WebSocketLimits limits;
  limits.message_bytes_max = service.options.body_bytes_max;
  limits.idle_timeout_ms = service.options.socket_idle_ms;
  return open_websocket(
      request, subprotocol, limits,
      std::make_unique<hrana::HranaSocket>(service, name, *mode, request.header("Authorization")));
}

}  // namespace

// One connection has many requests, reads and writes of the same transactions: at a node that has
// copies all of them go to the primary while it can be reached.
void open_hrana_socket(Service& service, const database::DatabaseName& name, HttpRequest& request,
                       Responder responder) {
  auto subprotocol = hrana::choose(offered_subprotocols(request));
  if (!subprotocol) {
    return responder.respond(error_response(
        400, "INVALID",
        "none of the subprotocols is spoken here: offer hrana3, hrana2 or hrana1 (as JSON)"));
  }
  Response here = open_here(service, name, request, *subprotocol);
  tunnel_to_primary(service, request, std::move(responder), std::move(here));
}

}  // namespace offprint::server
