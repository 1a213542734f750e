#include "publication/arguments.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include <fmt/format.h>

namespace offprint::publication {
namespace {

std::unexpected<Error> wrong_parameter(const Parameter& parameter, std::string_view text) {
  constexpr std::array<std::string_view, 4> kTypes = {"INTEGER", "REAL", "TEXT", "BLOB"};
  return fail(Code::kInvalid,
              fmt::format("PUBLICATION_PARAMETER: '{}' is no {}, as '{}' must be", text,
                          kTypes[static_cast<std::size_t>(parameter.type)], parameter.name));
}

template <class Number>
std::optional<Number> number_of(std::string_view text) {
  Number number{};
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

Result<sqlite::Value> parse_value(const Parameter& parameter, const std::string& text) {
  switch (parameter.type) {
    case Parameter::Type::kInteger: {
      auto number = number_of<std::int64_t>(text);
      if (!number) return wrong_parameter(parameter, text);
      return sqlite::Value(*number);
    }
    case Parameter::Type::kReal: {
      auto number = number_of<double>(text);
      if (!number) return wrong_parameter(parameter, text);
      return sqlite::Value(*number);
    }
    case Parameter::Type::kBlob: {
      auto bytes = from_hex(text);
      if (!bytes) return wrong_parameter(parameter, text);
      return sqlite::Value(*std::move(bytes));
    }
    default:
      return sqlite::Value(text);
  }
}

}  // namespace

Result<std::vector<Argument>> arguments_of(
    const Definition& definition, const std::vector<std::pair<std::string, std::string>>& texts) {
  std::vector<Argument> arguments;
  for (const Parameter& parameter : definition.parameters) {
    auto given =
        std::ranges::find(texts, parameter.name, &std::pair<std::string, std::string>::first);
    if (given == texts.end())
      return fail(Code::kInvalid,
                  fmt::format("PUBLICATION_PARAMETER: '{}' is missing", parameter.name));
    if (std::ranges::count(texts, parameter.name, &std::pair<std::string, std::string>::first) > 1)
      return fail(Code::kInvalid,
                  fmt::format("PUBLICATION_PARAMETER: '{}' is there twice", parameter.name));
    OFFPRINT_TRY_ASSIGN(auto value, parse_value(parameter, given->second));
    arguments.push_back({parameter.name, std::move(value)});
  }
  return arguments;
}

}  // namespace offprint::publication
