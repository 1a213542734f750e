#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

// WebSocket frames (RFC 6455), the server's side: no extensions.
namespace offprint::server {

enum class WebSocketOpcode : std::uint8_t {
  kContinuation = 0,
  kText = 1,
  kBinary = 2,
  kClose = 8,
  kPing = 9,
  kPong = 10
};

// Why a connection is closed, as RFC 6455 §7.4 numbers it.
enum class WebSocketStatus : std::uint16_t {
  kNormal = 1000,
  kGoingAway = 1001,
  kProtocolError = 1002,
  kWrongType = 1003,   // a frame of a type that the protocol does not use
  kBadPayload = 1007,  // no UTF-8, no JSON
  kPolicy = 1008,      // against the protocol that is spoken inside
  kTooBig = 1009,
  kInternal = 1011
};

// What a client sent: a whole message, or a control frame.
struct WebSocketEvent {
  WebSocketOpcode opcode = WebSocketOpcode::kText;  // never kContinuation
  std::string payload;                              // of kClose: the reason
  std::optional<std::uint16_t> close_code;          // kClose, when it has one
};

// Bytes in, messages out. Thread: one.
class WebSocketReader {
 public:
  // A message of more than `message_max` bytes is an error kTooBig.
  explicit WebSocketReader(std::size_t message_max) : message_max_(message_max) {}

  // Takes bytes up to the end of one message or control frame, and returns how many it took;
  // `event` is set when there is one. After an error it takes nothing more.
  std::size_t feed(std::string_view bytes, std::optional<WebSocketEvent>& event);
  // Set once the client broke the rules.
  const std::optional<WebSocketStatus>& error() const { return error_; }
  // In the middle of a message or frame.
  bool is_amid() const { return head_size_ > 0 || in_message_; }

 private:
  std::size_t head_length() const;
  void take_head();
  std::optional<WebSocketEvent> finish_frame();
  std::optional<WebSocketEvent> finish_close();
  void fail(WebSocketStatus status) { error_ = status; }

  const std::size_t message_max_;
  std::array<std::uint8_t, 14> head_{};  // of the current frame, as far as it has come
  std::size_t head_size_ = 0;
  bool head_done_ = false;
  bool is_final_ = false;
  WebSocketOpcode opcode_ = WebSocketOpcode::kText;  // of the current frame
  std::array<std::uint8_t, 4> mask_{};
  std::uint64_t left_ = 0;      // bytes of the frame's payload still to come
  std::size_t mask_index_ = 0;  // of the next byte
  bool in_message_ = false;     // a data frame has come that was not the last of its message
  WebSocketOpcode message_opcode_ = WebSocketOpcode::kText;
  std::string message_;
  std::string control_;
  std::optional<WebSocketStatus> error_;
};

// One whole frame, unmasked.
void append_websocket_frame(std::string& to, WebSocketOpcode opcode, std::string_view payload);
// `reason` is cut to what fits.
void append_websocket_close(std::string& to, std::uint16_t code, std::string_view reason);

// Sec-WebSocket-Accept for a client's Sec-WebSocket-Key.
std::string websocket_accept(std::string_view key);

}  // namespace offprint::server
