#include "database/bare_number.h"

#include <charconv>
#include <cstdlib>
#include <string>

namespace offprint::database {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// How many digits `text` begins with.
std::size_t digits(std::string_view text) {
  std::size_t count = 0;
  while (count < text.size() && is_digit(text[count])) ++count;
  return count;
}

}  // namespace

std::optional<sqlite::Value> bare_number(std::string_view text) {
  std::string_view rest = text;
  if (rest.starts_with('-')) rest.remove_prefix(1);
  std::size_t whole = digits(rest);
  if (whole == 0 || (whole > 1 && rest[0] == '0')) return std::nullopt;
  rest.remove_prefix(whole);
  if (rest.empty()) {
    std::int64_t integer = 0;
    auto read = std::from_chars(text.data(), text.data() + text.size(), integer);
    if (read.ec != std::errc()) return std::nullopt;
    return sqlite::Value(integer);
  }
  if (rest.starts_with('.')) {
    std::size_t fraction = digits(rest.substr(1));
    if (fraction == 0) return std::nullopt;
    rest.remove_prefix(1 + fraction);
  }
  if (!rest.empty()) {
    if (rest[0] != 'e' && rest[0] != 'E') return std::nullopt;
    rest.remove_prefix(1);
    if (rest.starts_with('-') || rest.starts_with('+')) rest.remove_prefix(1);
    if (rest.empty() || digits(rest) != rest.size()) return std::nullopt;
  }
  double real = 0;
  auto read = std::from_chars(text.data(), text.data() + text.size(), real);
  // It leaves out what is too large or too small.
  if (read.ec != std::errc()) real = std::strtod(std::string(text).c_str(), nullptr);
  return sqlite::Value(real);
}

}  // namespace offprint::database
