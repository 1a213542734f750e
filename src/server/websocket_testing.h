#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include <gtest/gtest.h>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/websocket.hpp>

namespace offprint::server::testing {

// A WebSocket to a server on loopback, by Boost.Beast. Every wait ends after 20 s.
class TestWebSocket {
 public:
  using error_code = boost::system::error_code;

  explicit TestWebSocket(std::uint16_t port) : stream_(context_) {
    stream_.next_layer().connect({boost::asio::ip::make_address("127.0.0.1"), port});
    stream_.next_layer().set_option(boost::asio::ip::tcp::no_delay(true));
    stream_.read_message_max(0);
    stream_.control_callback(
        [this](boost::beast::websocket::frame_type kind, boost::beast::string_view) {
          if (kind == boost::beast::websocket::frame_type::ping) ++pings_;
          if (kind == boost::beast::websocket::frame_type::pong) ++pongs_;
        });
  }

  // The answer's status and body when it is refused; 101 when it is open. `protocols`: empty: none.
  int open(const std::string& target, const std::string& protocols, std::string_view origin = {}) {
    stream_.set_option(boost::beast::websocket::stream_base::decorator(
        [&](boost::beast::websocket::request_type& request) {
          if (!protocols.empty()) request.set("Sec-WebSocket-Protocol", protocols);
          if (!origin.empty()) request.set("Origin", std::string(origin));
        }));
    boost::beast::websocket::response_type response;
    error_code error;
    run([&](auto done) { stream_.async_handshake(response, "127.0.0.1", target, done); }, error);
    body = response.body();
    protocol = std::string(response["Sec-WebSocket-Protocol"]);
    return static_cast<int>(response.result_int());
  }

  void send(std::string_view text) {
    error_code error;
    stream_.text(true);
    stream_.write(boost::asio::buffer(text.data(), text.size()), error);
  }
  void send_binary(std::string_view bytes) {
    error_code error;
    stream_.binary(true);
    stream_.write(boost::asio::buffer(bytes.data(), bytes.size()), error);
  }
  void send_raw(std::string_view bytes) {
    error_code error;
    boost::asio::write(stream_.next_layer(), boost::asio::buffer(bytes.data(), bytes.size()),
                       error);
  }
  void ping() {
    error_code error;
    stream_.ping({}, error);
  }
  // The next message; empty when the server has closed, then close_code() tells why.
  std::string read() {
    boost::beast::flat_buffer buffer;
    error_code error;
    run(
        [&](auto done) {
          stream_.async_read(buffer, [done](error_code e, std::size_t) { done(e); });
        },
        error);
    if (error) return {};
    return boost::beast::buffers_to_string(buffer.data());
  }
  std::string ask(std::string_view text) {
    send(text);
    return read();
  }
  int close_code() const { return stream_.reason().code; }
  std::string close_reason() const { return stream_.reason().reason.c_str(); }
  void close(int code = 1000) {
    error_code error;
    run(
        [&](auto done) {
          stream_.async_close(static_cast<boost::beast::websocket::close_code>(code), done);
        },
        error);
  }
  // Without a word.
  void drop() {
    error_code ignored;
    stream_.next_layer().close(ignored);
  }
  int pings() const { return pings_; }
  int pongs() const { return pongs_; }

  std::string body;      // of a refused handshake
  std::string protocol;  // the one chosen

 private:
  template <class Start>
  void run(Start start, error_code& error) {
    bool ended = false;
    start([&](error_code result) {
      error = result;
      ended = true;
    });
    context_.restart();
    context_.run_for(std::chrono::seconds(20));
    if (ended) return;
    ADD_FAILURE() << "the server says nothing";
    error_code ignored;
    stream_.next_layer().close(ignored);
    context_.restart();
    context_.run();
  }

  boost::asio::io_context context_;
  boost::beast::websocket::stream<boost::asio::ip::tcp::socket> stream_;
  int pings_ = 0;
  int pongs_ = 0;
};

}  // namespace offprint::server::testing
