#pragma once

#include <memory>
#include <optional>
#include <string>

#include <simdjson.h>

#include "base/result.h"

namespace offprint::server {

// Nesting beyond this is refused.
inline constexpr std::size_t kJsonDepthMax = 128;

// Parses one JSON text into a tree that lives as long as the reader (and `text`, which may get more
// capacity, and a point behind integers that no 64 bits hold: they are REAL). Thread: one. One
// reader at a time on a thread: small texts use the thread's own parser.
class JsonReader {
 public:
  // kInvalid with simdjson's reason; `what` is the text, in the message.
  Result<simdjson::dom::element> parse(std::string& text, std::string_view what = "the body");
  // The same of a request's body that must be an object.
  Result<simdjson::dom::object> parse_object(std::string& body);

 private:
  std::unique_ptr<simdjson::dom::parser> own_;
};

// A field's value; nothing when it is absent or null. The last one counts when a name comes twice.
std::optional<simdjson::dom::element> json_field(simdjson::dom::object object,
                                                 std::string_view name);
// The same, of one type. kInvalid "NAME must be …" for another one.
Result<std::optional<std::string_view>> json_string_field(simdjson::dom::object object,
                                                          std::string_view name);
Result<std::optional<std::int64_t>> json_integer_field(simdjson::dom::object object,
                                                       std::string_view name);
Result<std::optional<bool>> json_bool_field(simdjson::dom::object object, std::string_view name);
Result<std::optional<simdjson::dom::array>> json_array_field(simdjson::dom::object object,
                                                             std::string_view name);
Result<std::optional<simdjson::dom::object>> json_object_field(simdjson::dom::object object,
                                                               std::string_view name);

}  // namespace offprint::server
