// Frames as bytes: what is understood, what breaks the rules, and in which pieces it may come.
#include "server/websocket_frames.h"

#include <gtest/gtest.h>

namespace offprint::server {
namespace {

// A masked frame, as clients send them.
std::string frame(int first_byte, std::string_view payload, int length_code = -1) {
  std::string text(1, static_cast<char>(first_byte));
  if (length_code < 0) length_code = static_cast<int>(payload.size());
  text += static_cast<char>(0x80 | length_code);
  std::size_t size = payload.size();
  int bytes = length_code == 126 ? 2 : length_code == 127 ? 8 : 0;
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8)
    text += static_cast<char>((size >> shift) & 255);
  const std::string mask = "\x11\x22\x83\x44";
  text += mask;
  for (std::size_t i = 0; i < size; ++i) text += static_cast<char>(payload[i] ^ mask[i % 4]);
  return text;
}

struct Read {
  std::vector<WebSocketEvent> events;
  std::optional<WebSocketStatus> error;
};

Read read(std::string_view bytes, std::size_t piece = std::string_view::npos,
          std::size_t message_max = 1000) {
  WebSocketReader reader(message_max);
  Read result;
  while (!bytes.empty() && !reader.error()) {
    std::string_view now = bytes.substr(0, piece);
    bytes.remove_prefix(now.size());
    while (!now.empty() && !reader.error()) {
      std::optional<WebSocketEvent> event;
      now.remove_prefix(reader.feed(now, event));
      if (event) result.events.push_back(*event);
    }
  }
  result.error = reader.error();
  return result;
}

TEST(WebSocketFrames, MessagesInAnyPieces) {
  std::string long_text(70'000, 'x');
  std::string bytes = frame(0x81, "one") + frame(0x01, "t") + frame(0x89, "ping") +
                      frame(0x00, "") + frame(0x80, "wo") +
                      frame(0x82, std::string(200, 'b'), 126) + frame(0x81, long_text, 127) +
                      frame(0x8a, "") + frame(0x81, "") + frame(0x88, "\x03\xe8gone");
  for (std::size_t piece : {std::size_t{1}, std::size_t{2}, std::size_t{7}, std::size_t{1000},
                            std::string_view::npos}) {
    Read got = read(bytes, piece, 100'000);
    ASSERT_FALSE(got.error);
    ASSERT_EQ(got.events.size(), 8u);
    EXPECT_EQ(got.events[0].payload, "one");
    EXPECT_EQ(got.events[1].opcode, WebSocketOpcode::kPing) << "between parts of a message";
    EXPECT_EQ(got.events[2].payload, "two");
    EXPECT_EQ(got.events[2].opcode, WebSocketOpcode::kText);
    EXPECT_EQ(got.events[3].opcode, WebSocketOpcode::kBinary);
    EXPECT_EQ(got.events[4].payload, long_text);
    EXPECT_EQ(got.events[5].opcode, WebSocketOpcode::kPong);
    EXPECT_EQ(got.events[6].payload, "");
    EXPECT_EQ(got.events[7].close_code, 1000);
    EXPECT_EQ(got.events[7].payload, "gone");
  }
}

TEST(WebSocketFrames, BrokenRules) {
  std::string unmasked = "\x81\x01x";
  struct Case {
    const char* what;
    std::string bytes;
    WebSocketStatus status;
  };
  const Case cases[] = {
      {"not masked", unmasked, WebSocketStatus::kProtocolError},
      {"reserved bit", frame(0xc1, "x"), WebSocketStatus::kProtocolError},
      {"unknown type", frame(0x83, "x"), WebSocketStatus::kProtocolError},
      {"unknown control type", frame(0x8b, ""), WebSocketStatus::kProtocolError},
      {"ping in parts", frame(0x09, "x"), WebSocketStatus::kProtocolError},
      {"long ping", frame(0x89, std::string(126, 'x'), 126), WebSocketStatus::kProtocolError},
      {"end of nothing", frame(0x80, "x"), WebSocketStatus::kProtocolError},
      {"a message inside a message", frame(0x01, "x") + frame(0x81, "y"),
       WebSocketStatus::kProtocolError},
      {"length in too many bytes", frame(0x81, "x", 126), WebSocketStatus::kProtocolError},
      {"length in far too many bytes", frame(0x81, "x", 127), WebSocketStatus::kProtocolError},
      {"a negative length", std::string("\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff") + "mask",
       WebSocketStatus::kProtocolError},
      {"an announced giant", std::string("\x81\xff\x00\x00\x00\xff\x00\x00\x00\x00mask", 14),
       WebSocketStatus::kTooBig},
      {"too large", frame(0x81, std::string(1001, 'x'), 126), WebSocketStatus::kTooBig},
      {"too large in parts",
       frame(0x01, std::string(600, 'x'), 126) + frame(0x80, std::string(600, 'x'), 126),
       WebSocketStatus::kTooBig},
      {"no UTF-8", frame(0x81, "\xff"), WebSocketStatus::kBadPayload},
      {"half a character", frame(0x01, "\xe2\x82") + frame(0x80, "x"),
       WebSocketStatus::kBadPayload},
      {"half a code", frame(0x88, "\x03"), WebSocketStatus::kProtocolError},
      {"a code nobody may send", frame(0x88, "\x03\xed"), WebSocketStatus::kProtocolError},
      {"a reason that is no UTF-8", frame(0x88, "\x03\xe8\xff"), WebSocketStatus::kBadPayload},
  };
  for (const Case& broken : cases) {
    for (std::size_t piece : {std::size_t{1}, std::string_view::npos}) {
      Read got = read(broken.bytes, piece);
      EXPECT_EQ(got.error, broken.status) << broken.what;
      EXPECT_TRUE(got.events.empty()) << broken.what;
    }
  }
  EXPECT_FALSE(read(frame(0x01, "\xe2\x82") + frame(0x80, "\xac")).error)
      << "a character may be cut by frames";
}

TEST(WebSocketFrames, AsTheServerSendsThem) {
  std::string text;
  append_websocket_frame(text, WebSocketOpcode::kText, "hi");
  EXPECT_EQ(text, "\x81\x02hi");
  text.clear();
  append_websocket_frame(text, WebSocketOpcode::kText, std::string(126, 'x'));
  EXPECT_EQ(text.substr(0, 4), std::string("\x81\x7e\x00\x7e", 4));
  text.clear();
  append_websocket_frame(text, WebSocketOpcode::kText, std::string(65536, 'x'));
  EXPECT_EQ(text.substr(0, 10), std::string("\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 10));
  text.clear();
  append_websocket_close(text, 1008, "é" + std::string(121, 'x') + "é");
  EXPECT_EQ(text.size(), 2u + 125u);
  text.clear();
  append_websocket_close(text, 1008, std::string(122, 'x') + "é");
  EXPECT_EQ(text.size(), 2u + 2u + 122u) << "no half characters";
  EXPECT_EQ(websocket_accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
      << "RFC 6455, section 1.3";
}

}  // namespace
}  // namespace offprint::server
