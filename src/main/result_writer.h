#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "sqlite/connection.h"

namespace offprint {

// What one statement gave.
struct ResultSet {
  std::vector<std::string> columns;  // none: a statement that returns no rows
  std::vector<std::vector<sqlite::Value>> rows;
  std::int64_t changes = 0;
};

enum class ResultFormat {
  kTable,  // aligned columns, for eyes; also says how many rows a statement changed
  kPlain,  // values as they are between tabs, without names
  kCsv,    // RFC 4180, names first; BLOBs as x'0A1B'
  kJson,   // an object a row and line; BLOBs as {"base64":"…"}, equal names get :1, :2 …
};

// The text of a result in a format, ready to be written.
std::string format_result(const ResultSet& result, ResultFormat format);

// How many terminal columns a UTF-8 text takes.
std::size_t display_width(std::string_view text);

}  // namespace offprint
