#include "server/websocket_frames.h"

#include <algorithm>

#include <openssl/evp.h>
#include <simdjson.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

constexpr std::size_t kControlMax = 125;  // bytes of a control frame's payload
constexpr std::string_view kAcceptSuffix = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

bool is_control(WebSocketOpcode opcode) { return static_cast<std::uint8_t>(opcode) >= 8; }

bool is_known(WebSocketOpcode opcode) {
  auto value = static_cast<std::uint8_t>(opcode);
  return value <= 2 || (value >= 8 && value <= 10);
}

bool may_be_sent(std::uint16_t code) {
  return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
         (code >= 3000 && code <= 4999);
}

bool is_utf8(std::string_view text) { return simdjson::validate_utf8(text.data(), text.size()); }

}  // namespace

// Of the frame's head, as far as its first bytes tell.
std::size_t WebSocketReader::head_length() const {
  if (head_size_ < 2) return 2;
  std::uint8_t length = head_[1] & 0x7f;
  return 2 + (length == 126 ? 2u : length == 127 ? 8u : 0u) + ((head_[1] & 0x80) != 0 ? 4u : 0u);
}

void WebSocketReader::take_head() {
  is_final_ = (head_[0] & 0x80) != 0;
  opcode_ = static_cast<WebSocketOpcode>(head_[0] & 0x0f);
  std::uint8_t length = head_[1] & 0x7f;
  left_ = length;
  if (length == 126) left_ = load_be<std::uint16_t>(head_.data() + 2);
  if (length == 127) left_ = load_be<std::uint64_t>(head_.data() + 2);
  bool masked = (head_[1] & 0x80) != 0;
  bool shortest = (length != 126 || left_ > 125) && (length != 127 || left_ > 0xffff);
  bool reserved = (head_[0] & 0x70) != 0;
  if (!masked || !shortest || reserved || !is_known(opcode_) || left_ >> 63 != 0)
    return fail(WebSocketStatus::kProtocolError);
  std::copy_n(head_.data() + head_size_ - 4, 4, mask_.begin());
  mask_index_ = 0;
  head_done_ = true;
  if (is_control(opcode_)) {
    if (!is_final_ || left_ > kControlMax) return fail(WebSocketStatus::kProtocolError);
    control_.clear();
    return;
  }
  if ((opcode_ == WebSocketOpcode::kContinuation) != in_message_)
    return fail(WebSocketStatus::kProtocolError);
  if (!in_message_) {
    message_opcode_ = opcode_;
    in_message_ = true;
  }
  if (left_ > message_max_ - message_.size()) return fail(WebSocketStatus::kTooBig);
}

std::size_t WebSocketReader::feed(std::string_view bytes, std::optional<WebSocketEvent>& event) {
  event.reset();
  std::size_t used = 0;
  while (!error_ && !event) {
    if (!head_done_) {
      std::size_t wanted = head_length() - head_size_;
      std::size_t taken = std::min(wanted, bytes.size() - used);
      std::copy_n(bytes.data() + used, taken, head_.data() + head_size_);
      head_size_ += taken;
      used += taken;
      if (head_size_ < head_length()) {
        if (taken == 0) break;
        continue;
      }
      take_head();
      continue;
    }
    auto taken = static_cast<std::size_t>(std::min<std::uint64_t>(left_, bytes.size() - used));
    std::string& to = is_control(opcode_) ? control_ : message_;
    std::size_t start = to.size();
    to.append(bytes, used, taken);
    for (std::size_t i = start; i < to.size(); ++i, ++mask_index_)
      to[i] = static_cast<char>(to[i] ^ mask_[mask_index_ & 3]);
    used += taken;
    left_ -= taken;
    if (left_ > 0) break;
    event = finish_frame();
  }
  return used;
}

std::optional<WebSocketEvent> WebSocketReader::finish_frame() {
  head_size_ = 0;
  head_done_ = false;
  if (opcode_ == WebSocketOpcode::kClose) return finish_close();
  WebSocketEvent event;
  if (is_control(opcode_)) {
    event.opcode = opcode_;
    event.payload = std::move(control_);
    return event;
  }
  if (!is_final_) return std::nullopt;
  in_message_ = false;
  event.opcode = message_opcode_;
  event.payload = std::move(message_);
  message_ = std::string();
  if (message_opcode_ == WebSocketOpcode::kText && !is_utf8(event.payload)) {
    fail(WebSocketStatus::kBadPayload);
    return std::nullopt;
  }
  return event;
}

std::optional<WebSocketEvent> WebSocketReader::finish_close() {
  WebSocketEvent event;
  event.opcode = WebSocketOpcode::kClose;
  if (control_.empty()) return event;
  if (control_.size() >= 2) {
    event.close_code =
        load_be<std::uint16_t>(reinterpret_cast<const std::uint8_t*>(control_.data()));
    event.payload = control_.substr(2);
  }
  if (!event.close_code || !may_be_sent(*event.close_code)) {
    fail(WebSocketStatus::kProtocolError);
    return std::nullopt;
  }
  if (!is_utf8(event.payload)) {
    fail(WebSocketStatus::kBadPayload);
    return std::nullopt;
  }
  return event;
}

void append_websocket_frame(std::string& to, WebSocketOpcode opcode, std::string_view payload) {
  to += static_cast<char>(0x80 | static_cast<std::uint8_t>(opcode));
  std::uint8_t length[8];
  if (payload.size() <= 125) {
    to += static_cast<char>(payload.size());
  } else if (payload.size() <= 0xffff) {
    to += static_cast<char>(126);
    store_be<std::uint16_t>(length, static_cast<std::uint16_t>(payload.size()));
    to.append(reinterpret_cast<const char*>(length), 2);
  } else {
    to += static_cast<char>(127);
    store_be<std::uint64_t>(length, payload.size());
    to.append(reinterpret_cast<const char*>(length), 8);
  }
  to += payload;
}

void append_websocket_close(std::string& to, std::uint16_t code, std::string_view reason) {
  std::string payload(2, '\0');
  store_be<std::uint16_t>(reinterpret_cast<std::uint8_t*>(payload.data()), code);
  if (reason.size() > kControlMax - 2) {
    std::size_t size = kControlMax - 2;
    while (size > 0 && (static_cast<std::uint8_t>(reason[size]) & 0xc0) == 0x80) --size;
    reason = reason.substr(0, size);
  }
  payload += reason;
  append_websocket_frame(to, WebSocketOpcode::kClose, payload);
}

std::string websocket_accept(std::string_view key) {
  std::string text(key);
  text += kAcceptSuffix;
  std::array<std::uint8_t, EVP_MAX_MD_SIZE> digest;
  unsigned size = 0;
  int done = EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha1(), nullptr);
  OFFPRINT_ASSERT(done == 1);
  std::string accept;
  append_base64(accept, ByteView(digest).first(size), Base64Padding::kPadded);
  return accept;
}

}  // namespace offprint::server
