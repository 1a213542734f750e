#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <simdjson.h>

#include "base/result.h"

// Reading the JSON texts that coordinators exchange and keep.
namespace offprint::cluster {

// Parses one text that must be an object. Lives as long as what is read from it. Thread: one.
class JsonObject {
 public:
  // kCorrupt with `what`, the text's name, and the reason.
  Result<simdjson::dom::object> parse(std::string_view text, std::string_view what);

 private:
  simdjson::dom::parser parser_;
};

// A field's value; nothing when it is absent or null.
std::optional<simdjson::dom::element> json_value(simdjson::dom::object object,
                                                 std::string_view name);
// A field that must be there: kCorrupt "'NAME' must be …" otherwise.
Result<std::string> json_string(simdjson::dom::object object, std::string_view name);
Result<std::int64_t> json_integer(simdjson::dom::object object, std::string_view name);
Result<std::vector<std::string>> json_strings(simdjson::dom::object object, std::string_view name);
// An integer as a number or, as protocol buffers write 64 bits, as a string; an absent one is 0.
Result<std::int64_t> json_int64(simdjson::dom::object object, std::string_view name);
// Bytes in base64; absent ones are none.
Result<std::string> json_bytes(simdjson::dom::object object, std::string_view name);

}  // namespace offprint::cluster
