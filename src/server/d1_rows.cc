#include "server/d1_rows.h"

#include "server/json_writer.h"
#include "server/rows_json.h"

namespace offprint::server::d1 {
namespace {

void append_value(std::string& to, const sqlite::Statement& statement, int column) {
  if (statement.column_type(column) != SQLITE_BLOB)
    return append_plain_value(to, statement, column);
  to += '[';
  bool first = true;
  for (std::uint8_t byte : statement.column_blob(column)) {
    if (!first) to += ',';
    first = false;
    append_unsigned(to, byte);
  }
  to += ']';
}

}  // namespace

void D1Rows::columns(const sqlite::Statement& statement) {
  to_.clear();
  keys_.clear();
  started_ = first_ = true;
  bool arrays = form_ == RunOptions::Rows::kArrays;
  to_ = arrays ? "{\"columns\":[" : "[";
  int count = statement.column_count();
  for (int i = 0; i < count; ++i) {
    const char* name = sqlite3_column_name(statement.handle(), i);
    std::string key;
    append_json_string(key, name == nullptr ? "" : name);
    if (arrays) {
      if (i > 0) to_ += ',';
      to_ += key;
    } else {
      keys_.push_back(key + ":");
    }
  }
  if (arrays) to_ += "],\"rows\":[";
}

Result<> D1Rows::row(const sqlite::Statement& statement) {
  if (!first_) to_ += ',';
  first_ = false;
  bool arrays = form_ == RunOptions::Rows::kArrays;
  to_ += arrays ? '[' : '{';
  int count = statement.column_count();
  for (int i = 0; i < count; ++i) {
    if (i > 0) to_ += ',';
    if (!arrays) to_ += keys_[static_cast<std::size_t>(i)];
    append_value(to_, statement, i);
  }
  to_ += arrays ? ']' : '}';
  if (to_.size() <= size_max_) return {};
  return fail(Code::kTooLarge, "RESPONSE_TOO_LARGE: the answer is larger than " +
                                   std::to_string(size_max_) + " bytes; ask for less");
}

void D1Rows::close() {
  bool arrays = form_ == RunOptions::Rows::kArrays;
  if (!started_) to_ = arrays ? "{\"columns\":[],\"rows\":[" : "[";
  to_ += arrays ? "]}" : "]";
}

}  // namespace offprint::server::d1
