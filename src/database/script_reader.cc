#include "database/script_reader.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <sqlite3.h>

#include "database/sql_text.h"

namespace offprint::database {
namespace {

bool is_blank(int c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f'; }

// A trigger's body holds semicolons of its own.
bool may_hold_semicolons(std::string_view sql) {
  std::string_view word = first_word(sql);
  return equals_ignoring_case(word, "CREATE") || equals_ignoring_case(word, "EXPLAIN");
}

}  // namespace

int ScriptReader::get() {
  int c = ::getc_unlocked(from_);
  if (first_byte_) {
    first_byte_ = false;
    if (c == 0xef) {  // a byte order mark
      ::getc_unlocked(from_);
      ::getc_unlocked(from_);
      c = ::getc_unlocked(from_);
    }
  }
  return c;
}

Result<std::optional<ScriptStatement>> ScriptReader::next() {
  bool is_first = first_byte_;
  for (int c = get(); c != EOF; c = get()) {
    if (c == 0 || (is_first && (c == 0xfe || c == 0xff))) {
      return fail(Code::kInvalid,
                  fmt::format("line {}: not SQL in UTF-8; convert the file first", line_));
    }
    is_first = false;
    int previous = std::exchange(previous_, c);
    bool ended = false;
    if (in_statement_) {
      ended = take_code(c, previous);
    } else {
      OFFPRINT_TRY(take_between(c, previous));
    }
    at_line_start_ = c == '\n' || (at_line_start_ && is_blank(c));
    if (c == '\n') ++line_;
    if (ended) return finish();
    if (statement_.sql.size() > kStatementBytesMax) {
      return fail(Code::kTooLarge, fmt::format("line {}: a statement of more than {} MiB",
                                               statement_.line, kStatementBytesMax >> 20));
    }
  }
  if (std::ferror(from_)) return fail(Code::kIo, fmt::format("line {}: cannot be read", line_));
  if (in_statement_ && place_ == Place::kQuoted) {
    return fail(Code::kInvalid, fmt::format("line {}: a quoted text of this statement never ends",
                                            statement_.line));
  }
  if (!in_statement_) return std::optional<ScriptStatement>();
  return finish();
}

// Blanks, comments and empty statements before a statement are no part of it.
Result<> ScriptReader::take_between(int c, int previous) {
  if (place_ == Place::kLineComment || place_ == Place::kBlockComment) {
    take_code(c, previous);
    return {};
  }
  if (is_blank(c) || c == ';') return {};
  if (c == '.' && at_line_start_) {
    return fail(
        Code::kInvalid,
        fmt::format("line {}: a command of the sqlite3 program (.…) is not SQL; remove it", line_));
  }
  int following = ::getc_unlocked(from_);
  if (following != EOF) std::ungetc(following, from_);
  if ((c == '-' && following == '-') || (c == '/' && following == '*')) {
    place_ = c == '-' ? Place::kLineComment : Place::kBlockComment;
    if (c == '/') ::getc_unlocked(from_);
    previous_ = 0;  // "/*/" does not end it
    return {};
  }
  in_statement_ = true;
  statement_.line = line_;
  take_code(c, 0);
  return {};
}

bool ScriptReader::take_code(int c, int previous) {
  if (in_statement_) statement_.sql += static_cast<char>(c);
  switch (place_) {
    case Place::kQuoted:
      if (c == quote_) place_ = Place::kCode;  // a doubled quote opens it again at once
      return false;
    case Place::kLineComment:
      if (c == '\n') place_ = Place::kCode;
      return false;
    case Place::kBlockComment:
      if (c == '/' && previous == '*') {
        place_ = Place::kCode;
        previous_ = 0;
      }
      return false;
    case Place::kCode:
      break;
  }
  if (c == '\'' || c == '"' || c == '`' || c == '[') {
    place_ = Place::kQuoted;
    quote_ = c == '[' ? ']' : c;
  } else if (c == '-' && previous == '-') {
    place_ = Place::kLineComment;
  } else if (c == '*' && previous == '/') {
    place_ = Place::kBlockComment;
    previous_ = 0;
  } else if (c == ';') {
    return !may_hold_semicolons(statement_.sql) || sqlite3_complete(statement_.sql.c_str()) != 0;
  }
  return false;
}

std::optional<ScriptStatement> ScriptReader::finish() {
  place_ = Place::kCode;
  in_statement_ = false;
  previous_ = 0;
  return std::exchange(statement_, ScriptStatement());
}

std::uint64_t line_of_offset(std::string_view sql, int offset, std::uint64_t first_line) {
  if (offset < 0) return first_line;
  auto end =
      sql.begin() + std::min<std::ptrdiff_t>(offset, static_cast<std::ptrdiff_t>(sql.size()));
  return first_line + static_cast<std::uint64_t>(std::count(sql.begin(), end, '\n'));
}

}  // namespace offprint::database
