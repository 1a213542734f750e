#include "server/json_reader.h"

namespace offprint::server {
namespace {

constexpr std::size_t kSharedParserTextMax =
    1 << 20;  // larger texts do not stay in the thread's parser

template <class T>
Result<std::optional<T>> typed_field(simdjson::dom::object object, std::string_view name,
                                     std::string_view what) {
  auto value = json_field(object, name);
  if (!value) return std::optional<T>();
  T typed;
  if (value->get(typed) != simdjson::SUCCESS) {
    return fail(Code::kInvalid, "'" + std::string(name) + "' must be " + std::string(what));
  }
  return std::optional<T>(typed);
}

}  // namespace

Result<simdjson::dom::element> JsonReader::parse(std::string& text) {
  thread_local std::unique_ptr<simdjson::dom::parser> shared;
  std::unique_ptr<simdjson::dom::parser>& parser =
      text.size() <= kSharedParserTextMax ? shared : own_;
  if (!parser) {
    parser = std::make_unique<simdjson::dom::parser>();
    if (parser->allocate(1 << 14, kJsonDepthMax) != simdjson::SUCCESS) {
      parser.reset();
      return fail(Code::kInternal, "out of memory");
    }
  }
  text.reserve(text.size() + simdjson::SIMDJSON_PADDING);
  simdjson::dom::element root;
  auto error = parser->parse(text.data(), text.size(), false).get(root);
  if (error != simdjson::SUCCESS) {
    return fail(Code::kInvalid, std::string("the body is no JSON that can be read here: ") +
                                    simdjson::error_message(error));
  }
  return root;
}

std::optional<simdjson::dom::element> json_field(simdjson::dom::object object,
                                                 std::string_view name) {
  std::optional<simdjson::dom::element> found;
  for (auto field : object) {
    if (field.key == name) found = field.value;
  }
  if (found && found->is_null()) return std::nullopt;
  return found;
}

Result<std::optional<std::string_view>> json_string_field(simdjson::dom::object object,
                                                          std::string_view name) {
  return typed_field<std::string_view>(object, name, "a string");
}
Result<std::optional<std::int64_t>> json_integer_field(simdjson::dom::object object,
                                                       std::string_view name) {
  return typed_field<std::int64_t>(object, name, "a whole number");
}
Result<std::optional<bool>> json_bool_field(simdjson::dom::object object, std::string_view name) {
  return typed_field<bool>(object, name, "true or false");
}
Result<std::optional<simdjson::dom::array>> json_array_field(simdjson::dom::object object,
                                                             std::string_view name) {
  return typed_field<simdjson::dom::array>(object, name, "an array");
}
Result<std::optional<simdjson::dom::object>> json_object_field(simdjson::dom::object object,
                                                               std::string_view name) {
  return typed_field<simdjson::dom::object>(object, name, "an object");
}

}  // namespace offprint::server
