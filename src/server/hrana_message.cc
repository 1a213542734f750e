#include "server/hrana_message.h"

#include <limits>

#include "server/hrana_parse.h"
#include "server/json_reader.h"

namespace offprint::server::hrana {
namespace {

namespace dom = simdjson::dom;
using Kind = ClientMessage::Kind;

std::unexpected<Error> invalid(std::string message) {
  return fail(Code::kInvalid, std::move(message));
}

Result<std::int32_t> parse_id(dom::object object, std::string_view name) {
  OFFPRINT_TRY_ASSIGN(auto id, json_integer_field(object, name));
  if (!id || *id < std::numeric_limits<std::int32_t>::min() ||
      *id > std::numeric_limits<std::int32_t>::max())
    return invalid("'" + std::string(name) + "' must be a whole number of 32 bits");
  return static_cast<std::int32_t>(*id);
}

std::optional<Kind> own_kind(std::string_view type) {
  if (type == "open_stream") return Kind::kOpenStream;
  if (type == "close_stream") return Kind::kCloseStream;
  if (type == "open_cursor") return Kind::kOpenCursor;
  if (type == "fetch_cursor") return Kind::kFetchCursor;
  if (type == "close_cursor") return Kind::kCloseCursor;
  return std::nullopt;
}

// Those that only a WebSocket knows.
Result<> parse_own(dom::object request, ClientMessage& to) {
  if (to.kind == Kind::kFetchCursor) {
    OFFPRINT_TRY_ASSIGN(auto count, json_integer_field(request, "max_count"));
    if (!count || *count < 0 || *count > std::numeric_limits<std::uint32_t>::max())
      return invalid("'max_count' must be a whole number of 32 bits");
    to.count_max = static_cast<std::uint32_t>(*count);
  }
  if (to.kind != Kind::kFetchCursor && to.kind != Kind::kCloseCursor) {
    OFFPRINT_TRY_ASSIGN(to.stream_id, parse_id(request, "stream_id"));
  }
  if (to.kind != Kind::kOpenStream && to.kind != Kind::kCloseStream) {
    OFFPRINT_TRY_ASSIGN(to.cursor_id, parse_id(request, "cursor_id"));
  }
  if (to.kind == Kind::kOpenCursor) return parse_batch(request, to.request);
  return {};
}

}  // namespace

Result<ClientMessage> parse_message(std::string& text, bool& is_json) {
  JsonReader reader;
  Result<dom::element> root = reader.parse(text);
  is_json = root.has_value();
  if (!root) return fail(std::move(root).error());
  dom::object object;
  if (root->get(object) != simdjson::SUCCESS) return invalid("a message is an object");
  OFFPRINT_TRY_ASSIGN(auto type, json_string_field(object, "type"));
  ClientMessage message;
  message.bytes = text.size();
  if (type == "hello") {
    OFFPRINT_TRY_ASSIGN(auto jwt, json_string_field(object, "jwt"));
    if (jwt) message.jwt = std::string(*jwt);
    return message;
  }
  if (type != "request") return invalid("a message is of type 'hello' or 'request'");
  OFFPRINT_TRY_ASSIGN(message.request_id, parse_id(object, "request_id"));
  OFFPRINT_TRY_ASSIGN(auto request, json_object_field(object, "request"));
  if (!request) return invalid("'request' is missing");
  OFFPRINT_TRY_ASSIGN(auto what, json_string_field(*request, "type"));
  if (auto kind = own_kind(what.value_or(std::string_view()))) {
    message.kind = *kind;
    OFFPRINT_TRY(parse_own(*request, message));
    return message;
  }
  message.kind = Kind::kRequest;
  OFFPRINT_TRY_ASSIGN(message.request, parse_request(*request));
  if (message.request.kind == StreamRequest::Kind::kClose)
    return invalid("a stream of a WebSocket is closed by 'close_stream'");
  if (!message.is_of_connection()) {
    OFFPRINT_TRY_ASSIGN(message.stream_id, parse_id(*request, "stream_id"));
  }
  return message;
}

}  // namespace offprint::server::hrana
