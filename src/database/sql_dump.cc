#include "database/sql_dump.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "database/sql_dump_plan.h"

namespace offprint::database {
namespace {

constexpr std::size_t kValuePiece = 64 << 10;  // bytes of a long value written at once

// The shortest decimal number that is read as the same one, with a point or an exponent: an integer
// would be one in a column without affinity.
std::string real_literal(double value) {
  if (std::isinf(value)) return value > 0 ? "9e999" : "-9e999";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

}  // namespace

std::string quoted(std::string_view text, char quote) {
  std::string result(1, quote);
  for (char c : text) {
    if (c == quote) result += quote;
    result += c;
  }
  result += quote;
  return result;
}

Result<std::unique_ptr<SqlDump>> SqlDump::start(sqlite::Connection& db,
                                                const SqlDumpOptions& options) {
  std::unique_ptr<SqlDump> dump(new SqlDump(db));
  OFFPRINT_TRY_ASSIGN(dump->steps_, SqlDumpPlan(db, options).make());
  return dump;
}

Result<bool> SqlDump::next(std::string& to, std::size_t bytes) {
  std::size_t enough = to.size() + bytes;
  while (to.size() < enough) {
    if (at_ == steps_.size()) return false;
    const Step& step = steps_[at_];
    if (step.query.empty()) {
      to += step.text;
      ++at_;
      continue;
    }
    if (column_ < 0) {
      OFFPRINT_TRY(begin_row(to, step));
      continue;
    }
    if (!write_value(to)) continue;
    offset_ = 0;
    if (++column_ < rows_.column_count()) {
      to += ',';
    } else {
      to += ");\n";
      column_ = -1;
    }
  }
  return true;
}

Result<> SqlDump::begin_row(std::string& to, const Step& step) {
  if (!rows_) {
    OFFPRINT_TRY_ASSIGN(rows_, db_.prepare(step.query));
  }
  OFFPRINT_TRY_ASSIGN(bool row, rows_.step());
  if (row) {
    to += step.text;
    column_ = 0;
  } else {
    rows_ = {};
    ++at_;
  }
  return {};
}

bool SqlDump::write_value(std::string& to) {
  switch (rows_.column_type(column_)) {
    case SQLITE_INTEGER:
      to += std::to_string(rows_.column_int(column_));
      return true;
    case SQLITE_FLOAT:
      to += real_literal(rows_.column_double(column_));
      return true;
    case SQLITE_TEXT:
      return write_text(to, rows_.column_text(column_));
    case SQLITE_BLOB:
      return write_blob(to, rows_.column_blob(column_));
    default:
      to += "NULL";
      return true;
  }
}

// A literal cannot hold a zero byte: it is written as a mark that the text does not contain.
bool SqlDump::write_text(std::string& to, std::string_view text) {
  if (offset_ == 0) {
    nul_mark_.clear();
    if (text.find('\0') != std::string_view::npos) {
      nul_mark_ = "<0>";
      for (int i = 1; text.find(nul_mark_) != std::string_view::npos; ++i)
        nul_mark_ = fmt::format("<0{}>", i);
    }
    to += nul_mark_.empty() ? "'" : "replace('";
  }
  std::size_t end = std::min(offset_ + kValuePiece, text.size());
  for (; offset_ < end; ++offset_) {
    char c = text[offset_];
    if (c == '\0') {
      to += nul_mark_;
    } else {
      if (c == '\'') to += c;
      to += c;
    }
  }
  if (offset_ < text.size()) return false;
  to += nul_mark_.empty() ? "'" : fmt::format("','{}',char(0))", nul_mark_);
  return true;
}

bool SqlDump::write_blob(std::string& to, ByteView blob) {
  if (offset_ == 0) to += "x'";
  std::size_t size = std::min(kValuePiece, blob.size() - offset_);
  to += to_hex(blob.subspan(offset_, size));
  offset_ += size;
  if (offset_ < blob.size()) return false;
  to += '\'';
  return true;
}

}  // namespace offprint::database
