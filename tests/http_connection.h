#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace offprint::testing {

// The value of a field of an answer's head; empty when there is none.
std::string header_of(const std::string& head, const std::string& name);

// A plain blocking HTTP/1.1 client over one kept connection. Thread: one.
class HttpConnection {
 public:
  struct Answer {
    int status = 0;
    std::string head, body;
  };

  explicit HttpConnection(std::uint16_t port, int timeout_s = 60)
      : port_(port), timeout_s_(timeout_s) {}
  ~HttpConnection() { close(); }
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  // Connects when it is not connected. Nothing: no connection, or it was cut before the whole
  // answer came; whether the request arrived is then not known, unless refused().
  std::optional<Answer> request(const std::string& method, const std::string& path,
                                const std::string& body = {}, const std::string& headers = {});
  // The last request was not sent, for there was nobody to connect to.
  bool refused() const { return refused_; }
  void close();

 private:
  bool connect();
  bool send_all(const std::string& bytes);
  // One more piece into `text`; false when the connection is cut.
  bool receive(std::string& text);
  bool receive_chunks(std::string& text, std::size_t head_end, Answer& answer);

  const std::uint16_t port_;
  const int timeout_s_;
  int socket_ = -1;
  bool refused_ = false;
};

// {"sql":SQL,"args":[…]}; `args` as JSON.
std::string sql_body(const std::string& sql, const std::string& args = "[]");
// "text" quoted and escaped.
std::string json_quoted(const std::string& text);

// The rows of an answer of /query, as the text of the first result's "rows": "[[1,\"a\"]]"; empty
// when there is none.
std::string rows_of(const std::string& answer_body);
// A text or number at the top of a JSON object, as it stands there without quotes.
std::string json_field(const std::string& object, const std::string& name);

}  // namespace offprint::testing
