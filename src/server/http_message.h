#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

// What the HTTP layer (connection.h) and the routes (routes.h) say to each other.
namespace offprint::server {

class Access;

enum class Method { kGet, kHead, kPost, kPut, kPatch, kDelete, kOptions, kOther };

// ASCII letters compared without case, as field names and most field values want it.
bool equal_ignoring_case(std::string_view a, std::string_view b);

// A request. Its views point into the connection's parser: valid only during the call that passes
// it.
struct HttpRequest {
  Method method = Method::kOther;
  std::string_view target;  // origin form: path and query as sent, still percent-encoded
  std::vector<std::pair<std::string_view, std::string_view>> headers;
  int minor_version = 1;  // of HTTP/1.x
  bool keep_alive = true;
  bool chunked = false;
  bool expects_continue = false;
  std::optional<std::uint64_t> content_length;
  // The whole body, unless a BodyReceiver took it; free to be moved out. Has spare capacity for
  // simdjson's padding more often than not.
  std::string body;
  // What BodyPlan::access was: what the request may do. Empty: nobody is asked for a token here.
  std::shared_ptr<const Access> access;

  // The value of the first field with this name; empty when there is none.
  std::string_view header(std::string_view name) const;
  // GET or HEAD.
  bool is_get() const { return method == Method::kGet || method == Method::kHead; }
};

// The side of a connection that handlers hold on to. Thread: any.
class Client {
 public:
  virtual ~Client() = default;
  // Once for each request. Ignored when the connection is gone.
  virtual void respond(struct Response response) = 0;
  // A BodyStream has more, or a BodyReceiver can take more.
  virtual void wake() = 0;
  // Of the other end of the connection, "127.0.0.1"; empty: not known. Thread: the connection's.
  virtual std::string peer_address() const { return {}; }
};

// A response body made piece by piece. Thread: the connection's loop.
class BodyStream {
 public:
  enum class State {
    kMore,    // call again as soon as this is on the wire
    kWait,    // call again after Client::wake() or the loop's next tick (once a second)
    kEnd,     // that was all
    kFailed,  // cut the connection: the client must not take what it has for the whole
  };
  virtual ~BodyStream() = default;
  // Once, before the first fill.
  virtual void start(std::shared_ptr<Client> client) { (void)client; }
  // Appends what is ready (aim at 64 to 256 KiB at most) to `to`. Called only when everything
  // before it was sent.
  virtual State fill(std::string& to) = 0;
  // The server is about to stop: say goodbye in the next fill, or never mind.
  virtual void stop() {}
  // The client's token counts no more, and this ends: appends what he must be told all the same.
  virtual void last_words(std::string& to) { (void)to; }
};

// Speaks another protocol on a connection, after an answer with status 101: bytes in, bytes out.
// Thread: the connection's loop. Destroyed when the connection ends, also in the middle.
class Takeover {
 public:
  virtual ~Takeover() = default;
  // Once, first.
  virtual void start(std::shared_ptr<Client> client) = 0;
  // Takes all of what arrived. Called only while wants_more().
  virtual void receive(std::string_view bytes) = 0;
  // Bytes may arrive. Asked again after each fill().
  virtual bool wants_more() const = 0;
  // As a BodyStream's; called after receive() and Client::wake(), too. After kEnd the connection is
  // closed once the client has done so.
  virtual BodyStream::State fill(std::string& to) = 0;
  // The server is about to stop: come to an end.
  virtual void stop() = 0;
};

// Takes a request body too large for memory, piece by piece. Thread: the connection's loop.
class BodyReceiver {
 public:
  virtual ~BodyReceiver() = default;
  // Takes a piece and calls client->wake() once it can take the next one.
  virtual void receive(std::string piece, std::shared_ptr<Client> client) = 0;
  // The last piece has not been dealt with yet.
  virtual bool busy() const = 0;
};

struct Response {
  int status = 200;
  std::string_view content_type = "application/json";  // a literal; empty: no such field
  std::string headers;                                 // further fields, each "Name: value\r\n"
  std::string body;
  std::unique_ptr<BodyStream> stream;  // instead of `body`
  std::optional<std::uint64_t>
      stream_length;                   // Content-Length of `stream`; without it the body is chunked
  std::unique_ptr<Takeover> takeover;  // with status 101: goes on with the connection
  bool close = false;
  // Nothing was done, unless may_be_done: only the primary may answer this. A node that knows it
  // passes the request on instead of sending this answer.
  bool for_primary = false;
  // With for_primary: it may have been done all the same, once; the primary knows.
  bool may_be_done = false;
  // With for_primary: a baton in the request that means nothing to the primary, and nothing at all
  // but "go on".
  std::string own_baton;
};

// The duty to answer one request. Dropped without an answer it sends 500, so no client waits for
// ever.
class Responder {
 public:
  explicit Responder(std::shared_ptr<Client> client) : client_(std::move(client)) {}
  Responder(Responder&&) = default;
  Responder& operator=(Responder&&) = delete;
  ~Responder();
  void respond(Response response);
  const std::shared_ptr<Client>& client() const { return client_; }
  // Passes the duty on to somebody who wraps the client.
  std::shared_ptr<Client> release() { return std::exchange(client_, nullptr); }

 private:
  std::shared_ptr<Client> client_;
};

// What becomes of a request, decided when its head is complete.
struct BodyPlan {
  std::optional<Response> refusal;       // the answer; the body is not looked at
  std::shared_ptr<const Access> access;  // for HttpRequest::access
  std::uint64_t limit = 0;               // in bytes; beyond it 413
  std::shared_ptr<BodyReceiver>
      receiver;  // empty: memory. Shared by the connection and the handler.
};

// Answers requests. Thread: many loops at once; must not wait for a disk.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  virtual BodyPlan plan_body(const HttpRequest& request) = 0;
  // `receiver` is what plan_body gave.
  virtual void handle(HttpRequest& request, std::shared_ptr<BodyReceiver> receiver,
                      Responder responder) = 0;
};

// "Not Found" for 404.
std::string_view status_reason(int status);
// A body of the form that every kind of client of ours reads: {"error":{...}} is query's own; this
// is the plain one,
// {"error":m,"message":m,"code":c}.
Response error_response(int status, std::string_view code, std::string_view message);

}  // namespace offprint::server
