// Reads arbitrary bytes as a client's WebSocket frames, and its messages as Hrana. However the
// bytes are cut into pieces, the same must come out; what was understood must be understood again
// when it is sent as a frame of its own.
#include <cstdint>
#include <string>
#include <vector>

#include "base/assert.h"
#include "server/hrana_message.h"
#include "server/websocket_frames.h"

namespace {

using namespace offprint::server;

constexpr std::size_t kMessageMax = 1 << 16;

struct Read {
  std::vector<WebSocketEvent> events;
  std::optional<WebSocketStatus> error;
};

Read read(std::string_view bytes, std::size_t piece) {
  WebSocketReader reader(kMessageMax);
  Read result;
  while (!bytes.empty() && !reader.error()) {
    std::string_view now = bytes.substr(0, piece);
    bytes.remove_prefix(now.size());
    while (!now.empty() && !reader.error()) {
      std::optional<WebSocketEvent> event;
      std::size_t used = reader.feed(now, event);
      OFFPRINT_ASSERT(used <= now.size());
      OFFPRINT_ASSERT(used > 0 || event || reader.error());
      now.remove_prefix(used);
      if (event) result.events.push_back(*std::move(event));
    }
  }
  result.error = reader.error();
  return result;
}

bool same(const WebSocketEvent& a, const WebSocketEvent& b) {
  return a.opcode == b.opcode && a.payload == b.payload && a.close_code == b.close_code;
}

// A frame as clients send them, with an empty mask.
std::string masked(const WebSocketEvent& event) {
  std::string frame;
  append_websocket_frame(frame, event.opcode, event.payload);
  std::size_t head = frame.size() - event.payload.size();
  frame[1] = static_cast<char>(frame[1] | 0x80);
  frame.insert(head, 4, '\0');
  return frame;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view bytes(reinterpret_cast<const char*>(data), size);
  Read whole = read(bytes, std::string_view::npos);
  Read cut = read(bytes, 1 + size % 7);
  OFFPRINT_ASSERT(whole.error == cut.error && whole.events.size() == cut.events.size());
  for (std::size_t i = 0; i < whole.events.size(); ++i) {
    WebSocketEvent& event = whole.events[i];
    OFFPRINT_ASSERT(same(event, cut.events[i]) && event.payload.size() <= kMessageMax);
    if (event.opcode == WebSocketOpcode::kClose) continue;
    Read again = read(masked(event), std::string_view::npos);
    OFFPRINT_ASSERT(again.events.size() == 1 && same(again.events[0], event));
    bool is_json = false;
    auto message = hrana::parse_message(event.payload, is_json);
    OFFPRINT_ASSERT(is_json || !message);
  }
  std::string text(bytes);
  bool is_json = false;
  (void)hrana::parse_message(text, is_json);
  return 0;
}
