#include "main/conversation.h"

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include <sqlite3.h>

#include "main/commands.h"

namespace offprint {
namespace {

// What people of the sqlite3 program type first. Empty: not known.
std::string_view statement_of(std::string_view command) {
  if (command == ".tables")
    return "SELECT name, type FROM sqlite_schema WHERE type IN ('table','view') ORDER BY name;";
  if (command == ".schema")
    return "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY tbl_name, type DESC;";
  return {};
}

}  // namespace

int converse(const std::string& title, const std::function<Result<>(const std::string&)>& run) {
  std::printf("%s — statements end with a semicolon; .tables, .schema, .quit\n", title.c_str());
  std::string text;
  for (;;) {
    std::fputs(text.empty() ? "sql> " : "...> ", stdout);
    std::fflush(stdout);
    char* line = nullptr;
    std::size_t capacity = 0;
    ssize_t length = ::getline(&line, &capacity, stdin);
    if (length > 0) text.append(line, static_cast<std::size_t>(length));
    std::free(line);
    if (length <= 0) break;
    if (text == ".quit\n" || text == ".exit\n") return kExitDone;
    if (text.starts_with('.')) {
      std::string_view statement =
          statement_of(std::string_view(text).substr(0, text.find_first_of(" ;\n")));
      if (statement.empty()) std::fprintf(stderr, "there are .tables, .schema and .quit\n");
      text = statement;
    }
    if (text.find_first_not_of(" \t\n") == std::string::npos) text.clear();
    if (text.empty() || sqlite3_complete(text.c_str()) == 0) continue;
    if (Result<> done = run(text); !done)
      std::fprintf(stderr, "%s\n", done.error().message().c_str());
    text.clear();
  }
  std::printf("\n");
  return kExitDone;
}

}  // namespace offprint
