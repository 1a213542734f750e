#include "database/sql_text.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "database/request.h"

namespace offprint::database {
namespace {

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == ';';
}
bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

}  // namespace

std::string_view skip_blanks(std::string_view sql) {
  for (;;) {
    while (!sql.empty() && is_blank(sql.front())) sql.remove_prefix(1);
    if (sql.starts_with("--")) {
      std::size_t end = sql.find('\n');
      sql.remove_prefix(end == std::string_view::npos ? sql.size() : end + 1);
    } else if (sql.starts_with("/*")) {
      std::size_t end = sql.find("*/", 2);
      sql.remove_prefix(end == std::string_view::npos ? sql.size() : end + 2);
    } else {
      return sql;
    }
  }
}

std::string_view first_word(std::string_view sql) {
  sql = skip_blanks(sql);
  std::size_t length = 0;
  while (length < sql.size() && is_word(sql[length])) ++length;
  return sql.substr(0, length);
}

bool equals_ignoring_case(std::string_view text, std::string_view upper_case) {
  return text.size() == upper_case.size() &&
         std::equal(text.begin(), text.end(), upper_case.begin(),
                    [](unsigned char a, unsigned char b) { return std::toupper(a) == b; });
}

bool is_begin_readonly(std::string_view sql) {
  constexpr std::array<std::string_view, 3> kWords = {"BEGIN", "TRANSACTION", "READONLY"};
  for (std::string_view expected : kWords) {
    std::string_view word = first_word(sql);
    if (!equals_ignoring_case(word, expected)) return false;
    sql.remove_prefix(static_cast<std::size_t>(word.data() - sql.data()) + word.size());
  }
  return skip_blanks(sql).empty();
}

bool looks_read_only(std::string_view sql) {
  std::string_view word = first_word(sql);
  for (std::string_view reading : {"SELECT", "WITH", "VALUES", "EXPLAIN", "PRAGMA"}) {
    if (equals_ignoring_case(word, reading)) return true;
  }
  // The end of a transaction goes where its beginning went.
  for (std::string_view ending : {"COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"}) {
    if (equals_ignoring_case(word, ending)) return true;
  }
  return word.empty() || is_begin_readonly(sql);
}

}  // namespace offprint::database
