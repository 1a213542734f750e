#include "server/json_reader.h"

#include <charconv>

namespace offprint::server {
namespace {

constexpr std::size_t kSharedParserTextMax =
    1 << 20;  // larger texts do not stay in the thread's parser

// JavaScript writes 1e20 as an integer of 21 digits, which no 64 bits hold: with a point it is the
// REAL that it is. Changes nothing but such integers, outside of strings.
bool widen_long_integers(std::string& text) {
  auto fits = [](std::string_view digits, bool negative) {
    std::uint64_t value = 0;
    auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return result.ec == std::errc() && (!negative || value <= std::uint64_t{1} << 63);
  };
  auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  std::string widened;
  std::size_t copied = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (in_string && text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      in_string = !in_string;
    } else if (!in_string && is_digit(text[i])) {
      std::size_t begin = i;
      while (i < text.size() && is_digit(text[i])) ++i;
      bool is_integer = i == text.size() || (text[i] != '.' && text[i] != 'e' && text[i] != 'E');
      bool negative = begin > 0 && text[begin - 1] == '-';
      if (is_integer && !fits(std::string_view(text).substr(begin, i - begin), negative)) {
        widened += std::string_view(text).substr(copied, i - copied);
        widened += ".0";
        copied = i;
      }
      // Digits behind a point or an exponent are none of an integer.
      while (i < text.size() && (is_digit(text[i]) || text[i] == '.' || text[i] == 'e' ||
                                 text[i] == 'E' || text[i] == '+' || text[i] == '-')) {
        ++i;
      }
      --i;
    }
  }
  if (copied == 0) return false;
  widened += std::string_view(text).substr(copied);
  text = std::move(widened);
  return true;
}

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

Result<simdjson::dom::element> JsonReader::parse(std::string& text, std::string_view what) {
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
  if (error == simdjson::NUMBER_ERROR && widen_long_integers(text)) {
    text.reserve(text.size() + simdjson::SIMDJSON_PADDING);
    error = parser->parse(text.data(), text.size(), false).get(root);
  }
  if (error != simdjson::SUCCESS) {
    return fail(Code::kInvalid, std::string(what) + " is no JSON that can be read here: " +
                                    simdjson::error_message(error));
  }
  return root;
}

Result<simdjson::dom::object> JsonReader::parse_object(std::string& body) {
  OFFPRINT_TRY_ASSIGN(simdjson::dom::element root, parse(body));
  simdjson::dom::object object;
  if (root.get(object) != simdjson::SUCCESS)
    return fail(Code::kInvalid, "the body must be an object");
  return object;
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
