#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "server/hrana.h"

// What a client says over a WebSocket that speaks Hrana. docs/protocol/hrana.md, "WebSocket".
namespace offprint::server::hrana {

struct ClientMessage {
  enum class Kind {
    kHello,
    kOpenStream,
    kCloseStream,
    kRequest,  // `request`: one that a pipeline may have, too (but close)
    kOpenCursor,
    kFetchCursor,
    kCloseCursor
  };
  Kind kind = Kind::kHello;
  std::optional<std::string> jwt;  // kHello
  std::int32_t request_id = 0;     // all but kHello
  std::int32_t stream_id = 0;      // all that belong to a stream
  std::int32_t cursor_id = 0;      // those of cursors
  std::uint32_t count_max = 0;     // kFetchCursor: entries wanted
  StreamRequest request;           // kRequest; kOpenCursor: the batch
  std::size_t bytes = 0;           // of its text
  // It stands for itself, whatever its stream does: store_sql and close_sql.
  bool is_of_connection() const {
    return kind == Kind::kRequest && (request.kind == StreamRequest::Kind::kStoreSql ||
                                      request.kind == StreamRequest::Kind::kCloseSql);
  }
};

// `is_json` is set to false when it is not even that. `text` may get more capacity.
Result<ClientMessage> parse_message(std::string& text, bool& is_json);

}  // namespace offprint::server::hrana
