#include "publication/row.h"

#include <bit>

#include <fmt/format.h>

namespace offprint::publication {
namespace {

bool is_same(const sqlite::Value& a, const sqlite::Value& b) {
  const auto* number = std::get_if<double>(&a);
  const auto* other = std::get_if<double>(&b);
  if (number != nullptr && other != nullptr)
    return std::bit_cast<std::uint64_t>(*number) == std::bit_cast<std::uint64_t>(*other);
  return a == b;
}

}  // namespace

bool is_same(const Row& a, const Row& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!is_same(a[i], b[i])) return false;
  }
  return true;
}

sqlite::Value value_of(const sqlite::Statement& statement, int column) {
  switch (statement.column_type(column)) {
    case SQLITE_INTEGER:
      return statement.column_int(column);
    case SQLITE_FLOAT:
      return statement.column_double(column);
    case SQLITE_TEXT:
      return std::string(statement.column_text(column));
    case SQLITE_BLOB: {
      ByteView bytes = statement.column_blob(column);
      return Bytes(bytes.begin(), bytes.end());
    }
    default:
      return std::monostate();
  }
}

Row row_of(const sqlite::Statement& statement) {
  Row row;
  for (int i = 0; i < statement.column_count(); ++i) row.push_back(value_of(statement, i));
  return row;
}

void append_exactly(std::string& to, const sqlite::Value& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value))
    to += fmt::format("i{};", *integer);
  else if (const auto* real = std::get_if<double>(&value))
    to += fmt::format("r{};", std::bit_cast<std::uint64_t>(*real));
  else if (const auto* text = std::get_if<std::string>(&value))
    to += fmt::format("t{}:", text->size()) + *text;
  else if (const auto* blob = std::get_if<Bytes>(&value))
    to += fmt::format("b{}:", blob->size()) + std::string(as_text(*blob));
  else
    to += 'n';
}

}  // namespace offprint::publication
