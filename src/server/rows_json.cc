#include "server/rows_json.h"

#include <cmath>
#include <utility>

#include "server/json_writer.h"

namespace offprint::server {
namespace {

Result<> check_size(const std::string& text, std::size_t size_max) {
  if (text.size() <= size_max) return {};
  return result_too_large(size_max);
}

void append_name(std::string& to, const char* name) {
  if (name == nullptr) {
    to += "null";
  } else {
    append_json_string(to, name);
  }
}

template <class AppendValue>
void append_row(std::string& to, const sqlite::Statement& statement, AppendValue append_value) {
  to += '[';
  int count = statement.column_count();
  for (int i = 0; i < count; ++i) {
    if (i > 0) to += ',';
    append_value(to, statement, i);
  }
  to += ']';
}

}  // namespace

void append_hrana_value(std::string& to, const sqlite::Statement& statement, int column) {
  switch (statement.column_type(column)) {
    case SQLITE_INTEGER:
      to += R"({"type":"integer","value":")";
      append_integer(to, statement.column_int(column));
      to += "\"}";
      break;
    case SQLITE_FLOAT:
      to += R"({"type":"float","value":)";
      append_double(to, statement.column_double(column));
      to += '}';
      break;
    case SQLITE_TEXT:
      to += R"({"type":"text","value":)";
      append_json_string(to, statement.column_text(column));
      to += '}';
      break;
    case SQLITE_BLOB:
      to += R"({"type":"blob","base64":")";
      append_base64(to, statement.column_blob(column));
      to += "\"}";
      break;
    default:
      to += R"({"type":"null"})";
  }
}

void append_plain_value(std::string& to, const sqlite::Statement& statement, int column) {
  switch (statement.column_type(column)) {
    case SQLITE_INTEGER:
      append_integer(to, statement.column_int(column));
      break;
    case SQLITE_FLOAT:
      append_double(to, statement.column_double(column));
      break;
    case SQLITE_TEXT:
      append_json_string(to, statement.column_text(column));
      break;
    case SQLITE_BLOB:
      to += R"({"base64":")";
      append_base64(to, statement.column_blob(column), Base64Padding::kPadded);
      to += "\"}";
      break;
    default:
      to += "null";
  }
}

std::unexpected<Error> result_too_large(std::uint64_t size_max) {
  return fail(Code::kTooLarge, "RESPONSE_TOO_LARGE: the answer is larger than " +
                                   std::to_string(size_max) + " bytes; ask for less");
}

void append_hrana_columns(std::string& to, const sqlite::Statement& statement) {
  to += "\"cols\":[";
  int count = statement.column_count();
  for (int i = 0; i < count; ++i) {
    to += i > 0 ? R"(,{"name":)" : R"({"name":)";
    append_name(to, sqlite3_column_name(statement.handle(), i));
    to += R"(,"decltype":)";
    append_name(to, sqlite3_column_decltype(statement.handle(), i));
    to += '}';
  }
  to += ']';
}

void append_hrana_row(std::string& to, const sqlite::Statement& statement) {
  append_row(to, statement, append_hrana_value);
}

void HranaRows::columns(const sqlite::Statement& statement) {
  started_ = true;
  append_hrana_columns(to_, statement);
  to_ += ",\"rows\":[";
}

Result<> HranaRows::row(const sqlite::Statement& statement) {
  if (!want_rows_) return {};
  if (!std::exchange(first_, false)) to_ += ',';
  append_hrana_row(to_, statement);
  return check_size(to_, size_max_);
}

void HranaRows::close() { to_ += started_ ? "]" : R"("cols":[],"rows":[])"; }

void PlainRows::columns(const sqlite::Statement& statement) {
  started_ = true;
  to_ += "\"columns\":[";
  int count = statement.column_count();
  for (int i = 0; i < count; ++i) {
    if (i > 0) to_ += ',';
    append_name(to_, sqlite3_column_name(statement.handle(), i));
  }
  to_ += "],\"rows\":[";
}

Result<> PlainRows::row(const sqlite::Statement& statement) {
  if (!std::exchange(first_, false)) to_ += ',';
  append_row(to_, statement, append_plain_value);
  return check_size(to_, size_max_);
}

void PlainRows::close() { to_ += started_ ? "]" : R"("columns":[],"rows":[])"; }

}  // namespace offprint::server
