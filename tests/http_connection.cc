#include "tests/http_connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <simdjson.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cstdlib>

namespace offprint::testing {
std::string header_of(const std::string& head, const std::string& name) {
  for (std::size_t at = head.find("\r\n"); at != std::string::npos;
       at = head.find("\r\n", at + 2)) {
    if (::strncasecmp(head.c_str() + at + 2, name.c_str(), name.size()) != 0) continue;
    std::size_t from = at + 2 + name.size() + 1, end = head.find("\r\n", from);
    std::string value = head.substr(from, end - from);
    return value.substr(std::min(value.find_first_not_of(' '), value.size()));
  }
  return {};
}

void HttpConnection::close() {
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
}

bool HttpConnection::connect() {
  if (socket_ >= 0) return true;
  socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port_);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int on = 1;
  ::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  timeval timeout{timeout_s_, 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  if (::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return true;
  close();
  return false;
}

bool HttpConnection::send_all(const std::string& bytes) {
  for (std::size_t sent = 0; sent < bytes.size();) {
    ssize_t count = ::send(socket_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count <= 0) return false;
    sent += static_cast<std::size_t>(count);
  }
  return true;
}

bool HttpConnection::receive(std::string& text) {
  char piece[64 << 10];
  ssize_t got = ::recv(socket_, piece, sizeof piece, 0);
  if (got <= 0) return false;
  text.append(piece, static_cast<std::size_t>(got));
  return true;
}

bool HttpConnection::receive_chunks(std::string& text, std::size_t at, Answer& answer) {
  for (;;) {
    std::size_t end = text.find("\r\n", at);
    if (end == std::string::npos) {
      if (!receive(text)) return false;
      continue;
    }
    std::size_t size = std::strtoull(text.c_str() + at, nullptr, 16);
    while (text.size() < end + 2 + size + 2) {
      if (!receive(text)) return false;
    }
    answer.body.append(text, end + 2, size);
    at = end + 2 + size + 2;
    if (size == 0) return true;
  }
}

std::optional<HttpConnection::Answer> HttpConnection::request(const std::string& method,
                                                              const std::string& path,
                                                              const std::string& body,
                                                              const std::string& headers) {
  refused_ = !connect();
  if (refused_) return std::nullopt;
  std::string text = method + " " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: " +
                     std::to_string(body.size()) + "\r\nContent-Type: application/json\r\n" +
                     headers + "\r\n" + body;
  auto cut = [this] {
    close();
    return std::nullopt;
  };
  if (!send_all(text)) return cut();
  text.clear();
  std::size_t head = std::string::npos;
  while ((head = text.find("\r\n\r\n")) == std::string::npos) {
    if (!receive(text)) return cut();
  }
  Answer answer;
  answer.head = text.substr(0, head + 2);
  answer.status = std::atoi(text.c_str() + 9);
  if (header_of(answer.head, "Transfer-Encoding") == "chunked") {
    if (!receive_chunks(text, head + 4, answer)) return cut();
    return answer;
  }
  std::size_t length =
      method == "HEAD"
          ? 0
          : std::strtoull(header_of(answer.head, "Content-Length").c_str(), nullptr, 10);
  while (text.size() < head + 4 + length) {
    if (!receive(text)) return cut();
  }
  answer.body = text.substr(head + 4, length);
  if (header_of(answer.head, "Connection") == "close") close();
  return answer;
}

std::string json_quoted(const std::string& text) {
  std::string result = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    if (c == '\n') {
      result += "\\n";
    } else {
      result += c;
    }
  }
  return result + "\"";
}

std::string sql_body(const std::string& sql, const std::string& args) {
  return "{\"sql\":" + json_quoted(sql) + ",\"args\":" + args + "}";
}

std::string rows_of(const std::string& answer_body) {
  simdjson::dom::parser parser;
  simdjson::dom::element root, rows;
  simdjson::padded_string padded(answer_body);
  if (parser.parse(padded).get(root) != simdjson::SUCCESS) return {};
  if (root.at_pointer("/results/0/rows").get(rows) != simdjson::SUCCESS) return {};
  return simdjson::minify(rows);
}

std::string json_field(const std::string& object, const std::string& name) {
  simdjson::dom::parser parser;
  simdjson::dom::element root, value;
  simdjson::padded_string padded(object);
  if (parser.parse(padded).get(root) != simdjson::SUCCESS) return {};
  if (root.at_pointer("/" + name).get(value) != simdjson::SUCCESS) return {};
  std::string_view text;
  return value.get(text) == simdjson::SUCCESS ? std::string(text) : simdjson::minify(value);
}

}  // namespace offprint::testing
