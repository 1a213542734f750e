#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "server/http_message.h"
#include "server/websocket_frames.h"

namespace offprint::server {

// The request asks to go on as a WebSocket.
bool is_websocket_request(const HttpRequest& request);

struct WebSocketLimits {
  std::size_t message_bytes_max = 64 << 20;
  int idle_timeout_ms =
      75'000;  // a ping goes out after half of it, and is answered within the other
};

// What is spoken over a WebSocket, in whole text messages. Thread: the connection's loop. Destroyed
// when the connection ends.
class SocketProtocol {
 public:
  struct Close {
    WebSocketStatus status;
    std::string reason;
  };
  virtual ~SocketProtocol() = default;
  // Once, first. `client` is to be woken when there is a message to send.
  virtual void start(std::shared_ptr<Client> client) = 0;
  // Takes a message. An answer closes the connection with it, after what is to be sent before.
  virtual std::optional<Close> receive(std::string& message) = 0;
  // It has room for more messages.
  virtual bool wants_more() const = 0;
  // The next message to be sent, asked for when those before have left; false: none now.
  virtual bool next(std::string& message) = 0;
  // Messages to be sent are still to come for what was received.
  virtual bool is_busy() const = 0;
  // Asked once a second: the client has not done in time what it must.
  virtual std::optional<Close> overdue(Deadline now) = 0;
};

// Refuses what is no proper handshake; else answers with 101, and the connection goes on with
// `protocol`. `subprotocol`: the one chosen; empty: none was offered.
Response open_websocket(const HttpRequest& request, std::string_view subprotocol,
                        const WebSocketLimits& limits, std::unique_ptr<SocketProtocol> protocol);

// The subprotocols that a client offers, in its order.
std::vector<std::string_view> offered_subprotocols(const HttpRequest& request);

}  // namespace offprint::server
