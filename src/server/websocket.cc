#include "server/websocket.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

constexpr std::size_t kFillTarget = 256 << 10;

// The elements of a list such as "keep-alive, Upgrade".
template <class Each>
void for_each_token(std::string_view list, Each each) {
  while (!list.empty()) {
    std::size_t comma = std::min(list.find(','), list.size());
    std::string_view token = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    while (token.starts_with(' ') || token.starts_with('\t')) token.remove_prefix(1);
    while (token.ends_with(' ') || token.ends_with('\t')) token.remove_suffix(1);
    if (!token.empty()) each(token);
  }
}

bool has_token(const HttpRequest& request, std::string_view field, std::string_view wanted) {
  bool found = false;
  for (const auto& [name, value] : request.headers) {
    if (!equal_ignoring_case(name, field)) continue;
    for_each_token(value,
                   [&](std::string_view token) { found |= equal_ignoring_case(token, wanted); });
  }
  return found;
}

// Why it is no proper handshake.
std::optional<Response> refusal(const HttpRequest& request) {
  auto invalid = [](std::string_view what) { return error_response(400, "INVALID", what); };
  if (request.method != Method::kGet || request.minor_version < 1 ||
      request.content_length.value_or(0) > 0 || request.chunked)
    return invalid("a WebSocket begins with GET over HTTP/1.1, without a body");
  if (!has_token(request, "Connection", "upgrade"))
    return invalid("a WebSocket's first request has the field Connection: Upgrade");
  if (request.header("Sec-WebSocket-Version") != "13") {
    Response response = error_response(426, "INVALID", "version 13 of WebSockets is spoken here");
    response.headers += "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n";
    return response;
  }
  Bytes key;
  if (!decode_base64(request.header("Sec-WebSocket-Key"), key) || key.size() != 16)
    return invalid("Sec-WebSocket-Key is not 16 bytes of base64");
  return std::nullopt;
}

class WebSocket final : public Takeover {
 public:
  WebSocket(const WebSocketLimits& limits, std::unique_ptr<SocketProtocol> protocol)
      : limits_(limits), protocol_(std::move(protocol)), reader_(limits.message_bytes_max) {}

  void start(std::shared_ptr<Client> client) override { protocol_->start(std::move(client)); }

  void receive(std::string_view bytes) override {
    heard_ = SteadyClock::now();
    pinged_.reset();
    while (!bytes.empty() && !close_) {
      std::optional<WebSocketEvent> event;
      bytes.remove_prefix(reader_.feed(bytes, event));
      if (reader_.error()) return close(*reader_.error(), "");
      if (event) take(*event);
    }
  }

  bool wants_more() const override { return !close_ && !stopping_ && protocol_->wants_more(); }

  BodyStream::State fill(std::string& to) override {
    if (pong_) append_websocket_frame(to, WebSocketOpcode::kPong, *std::exchange(pong_, {}));
    std::string message;
    while (to.size() < kFillTarget) {
      if (!protocol_->next(message)) return go_on(to);
      append_websocket_frame(to, WebSocketOpcode::kText, message);
    }
    return BodyStream::State::kMore;
  }

  void stop() override { stopping_ = true; }

 private:
  void close(WebSocketStatus status, std::string reason) {
    close_ = {static_cast<std::uint16_t>(status), std::move(reason)};
  }

  void take(WebSocketEvent& event) {
    switch (event.opcode) {
      case WebSocketOpcode::kText:
        if (auto wrong = protocol_->receive(event.payload))
          close(wrong->status, std::move(wrong->reason));
        break;
      case WebSocketOpcode::kPing:
        pong_ = std::move(event.payload);  // only the last one needs an answer
        break;
      case WebSocketOpcode::kPong:
        break;
      case WebSocketOpcode::kClose:
        close_ = {event.close_code.value_or(static_cast<std::uint16_t>(WebSocketStatus::kNormal)),
                  {}};
        break;
      default:
        close(WebSocketStatus::kWrongType, "only text is spoken here");
    }
  }

  // Everything that was ready is in `to`.
  BodyStream::State go_on(std::string& to) {
    Deadline now = SteadyClock::now();
    auto half = std::chrono::milliseconds(limits_.idle_timeout_ms / 2);
    if (!protocol_->wants_more()) {  // its silence is ours
      heard_ = now;
      pinged_.reset();
    }
    if (!close_ && stopping_ && !protocol_->is_busy())
      close(WebSocketStatus::kGoingAway, "the server stops");
    if (!close_ && pinged_ && now - *pinged_ > half && !protocol_->is_busy())
      return BodyStream::State::kFailed;
    if (auto late = close_ ? std::nullopt : protocol_->overdue(now))
      close(late->status, std::move(late->reason));
    if (close_) {
      append_websocket_close(to, close_->first, close_->second);
      return BodyStream::State::kEnd;
    }
    if (!pinged_ && now - heard_ > half) {
      pinged_ = now;
      append_websocket_frame(to, WebSocketOpcode::kPing, "");
    }
    return BodyStream::State::kWait;
  }

  const WebSocketLimits limits_;
  const std::unique_ptr<SocketProtocol> protocol_;
  WebSocketReader reader_;
  Deadline heard_ = SteadyClock::now();
  std::optional<Deadline> pinged_;  // when, if nothing was heard since
  std::optional<std::string> pong_;
  std::optional<std::pair<std::uint16_t, std::string>> close_;  // to be sent: code and reason
  bool stopping_ = false;
};

}  // namespace

bool is_websocket_request(const HttpRequest& request) {
  return has_token(request, "Upgrade", "websocket");
}

std::vector<std::string_view> offered_subprotocols(const HttpRequest& request) {
  std::vector<std::string_view> offered;
  for (const auto& [name, value] : request.headers) {
    if (!equal_ignoring_case(name, "Sec-WebSocket-Protocol")) continue;
    for_each_token(value, [&](std::string_view token) { offered.push_back(token); });
  }
  return offered;
}

Response open_websocket(const HttpRequest& request, std::string_view subprotocol,
                        const WebSocketLimits& limits, std::unique_ptr<SocketProtocol> protocol) {
  if (auto refused = refusal(request)) return *std::move(refused);
  Response response;
  response.status = 101;
  response.content_type = {};
  response.headers = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
                     websocket_accept(request.header("Sec-WebSocket-Key")) + "\r\n";
  if (!subprotocol.empty())
    response.headers += "Sec-WebSocket-Protocol: " + std::string(subprotocol) + "\r\n";
  response.takeover = std::make_unique<WebSocket>(limits, std::move(protocol));
  return response;
}

}  // namespace offprint::server
