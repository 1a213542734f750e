#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

#include "base/result.h"

namespace offprint::database {

struct ScriptStatement {
  std::string sql;         // without what stands before it; ends with its semicolon if it has one
  std::uint64_t line = 1;  // of its first word, counted from 1
};

// Takes a script apart into its statements as they come, however large the script is.
// Thread: one. Memory: one statement, at most kStatementBytesMax.
class ScriptReader {
 public:
  // A value of SQLite's greatest size here (256 MiB) as hexadecimal digits.
  static constexpr std::size_t kStatementBytesMax = 520 << 20;

  // `from` must outlive it.
  explicit ScriptReader(std::FILE* from) : from_(from) {}

  // The next statement; nothing at the end. kInvalid "line N: …": not SQL (a command of the sqlite3
  // program, UTF-16, a NUL byte), or a text or comment that never ends.
  Result<std::optional<ScriptStatement>> next();
  // Something was read that is no whole statement yet.
  bool in_statement() const { return in_statement_; }

 private:
  enum class Place { kCode, kQuoted, kLineComment, kBlockComment };

  int get();
  Result<> take_between(int c, int previous);
  // True: the statement ended here.
  bool take_code(int c, int previous);
  std::optional<ScriptStatement> finish();

  std::FILE* from_;
  std::uint64_t line_ = 1;
  bool at_line_start_ = true;
  bool first_byte_ = true;

  bool in_statement_ = false;  // else: between two
  Place place_ = Place::kCode;
  int quote_ = 0;  // kQuoted: what ends it
  int previous_ = 0;
  ScriptStatement statement_;
};

// The line of a byte offset within a statement that begins at `first_line`.
std::uint64_t line_of_offset(std::string_view sql, int offset, std::uint64_t first_line);

}  // namespace offprint::database
