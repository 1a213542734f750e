#include "cluster/coordinator_json.h"

#include <charconv>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/text_encoding.h"

namespace offprint::cluster {
namespace {

constexpr std::size_t kDepthMax = 32;
constexpr std::size_t kTextMax = 16 << 20;

std::unexpected<Error> wrong(std::string_view name, std::string_view what) {
  return fail(Code::kCorrupt, fmt::format("'{}' must be {}", name, what));
}

}  // namespace

Result<simdjson::dom::object> JsonObject::parse(std::string_view text, std::string_view what) {
  if (text.size() > kTextMax) return fail(Code::kCorrupt, fmt::format("{} is too long", what));
  if (parser_.allocate(text.size() + 64, kDepthMax) != simdjson::SUCCESS)
    return fail(Code::kInternal, "out of memory");
  simdjson::dom::element root;
  if (auto error = parser_.parse(text.data(), text.size()).get(root); error != simdjson::SUCCESS) {
    return fail(Code::kCorrupt,
                fmt::format("{} is no JSON: {}", what, simdjson::error_message(error)));
  }
  simdjson::dom::object object;
  if (root.get(object) != simdjson::SUCCESS)
    return fail(Code::kCorrupt, fmt::format("{} is no JSON object", what));
  return object;
}

std::optional<simdjson::dom::element> json_value(simdjson::dom::object object,
                                                 std::string_view name) {
  simdjson::dom::element value;
  if (object.at_key(name).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
  return value;
}

Result<std::string> json_string(simdjson::dom::object object, std::string_view name) {
  auto value = json_value(object, name);
  std::string_view text;
  if (!value || value->get(text) != simdjson::SUCCESS) return wrong(name, "a string");
  return std::string(text);
}

Result<std::int64_t> json_integer(simdjson::dom::object object, std::string_view name) {
  auto value = json_value(object, name);
  std::int64_t number = 0;
  if (!value || value->get(number) != simdjson::SUCCESS) return wrong(name, "a whole number");
  return number;
}

Result<std::vector<std::string>> json_strings(simdjson::dom::object object, std::string_view name) {
  auto value = json_value(object, name);
  simdjson::dom::array array;
  if (!value || value->get(array) != simdjson::SUCCESS) return wrong(name, "an array of strings");
  std::vector<std::string> all;
  for (simdjson::dom::element each : array) {
    std::string_view text;
    if (each.get(text) != simdjson::SUCCESS) return wrong(name, "an array of strings");
    all.emplace_back(text);
  }
  return all;
}

Result<std::int64_t> json_int64(simdjson::dom::object object, std::string_view name) {
  auto value = json_value(object, name);
  if (!value) return 0;
  std::int64_t number = 0;
  if (value->get(number) == simdjson::SUCCESS) return number;
  std::string_view text;
  if (value->get(text) != simdjson::SUCCESS) return wrong(name, "a whole number");
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size())
    return wrong(name, "a whole number");
  return number;
}

Result<std::string> json_bytes(simdjson::dom::object object, std::string_view name) {
  auto value = json_value(object, name);
  if (!value) return std::string();
  std::string_view text;
  Bytes bytes;
  if (value->get(text) != simdjson::SUCCESS || !decode_base64(text, bytes))
    return wrong(name, "bytes in base64");
  return std::string(as_text(bytes));
}

}  // namespace offprint::cluster
