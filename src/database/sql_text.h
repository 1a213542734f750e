#pragma once

#include <string_view>

// What can be told from the text of SQL without SQLite's parser.
namespace offprint::database {

// The text without leading blanks, comments and semicolons.
std::string_view skip_blanks(std::string_view sql);
// The first word after skip_blanks, as written.
std::string_view first_word(std::string_view sql);
bool equals_ignoring_case(std::string_view text, std::string_view upper_case);
// BEGIN TRANSACTION READONLY, as libSQL's clients send it for read transactions; not SQLite's own
// syntax.
bool is_begin_readonly(std::string_view sql);

}  // namespace offprint::database
