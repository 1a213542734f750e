#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "database/request.h"
#include "server/cursor.h"
#include "server/hrana_message.h"
#include "server/hrana_run.h"

// The requests of a Hrana WebSocket on their way through the store.
namespace offprint::server::hrana {

// What became of a request.
struct FinishedWork {
  std::int32_t stream_id = 0;
  std::size_t bytes = 0;  // of the request
  std::string message;    // to be sent
  std::shared_ptr<database::HeldTransaction> held;
  std::int32_t cursor_id = 0;
  std::shared_ptr<CursorEntries> cursor;  // that was opened, under cursor_id
};

// Where finished requests wait for the loop of their connection, which they wake. When the
// connection has gone, the transactions that they leave are rolled back. Thread: any.
class SocketMailbox {
 public:
  explicit SocketMailbox(Service& service) : service_(service) {}
  void open(std::shared_ptr<Client> client);
  void close();
  void post(FinishedWork work);
  // What has come since the last time.
  std::vector<FinishedWork> take();

 private:
  Service& service_;
  std::mutex mutex_;
  std::vector<FinishedWork> finished_;  // guarded by mutex_
  std::shared_ptr<Client> client_;      // guarded by mutex_; empty: the connection has gone
};

// {"type":"response_ok","request_id":n,"response": and what ends it.
std::string response_head(std::int32_t request_id);
inline constexpr std::string_view kResponseTail = "}";
std::string response_error(std::int32_t request_id, const Error& error);

// A kRequest or kOpenCursor that needs the database. Its mailbox gets exactly one message.
std::unique_ptr<database::Request> socket_request(Service& service, ClientMessage message,
                                                  std::shared_ptr<SocketMailbox> mailbox);

}  // namespace offprint::server::hrana
