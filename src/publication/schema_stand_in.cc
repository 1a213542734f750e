#include "publication/schema_stand_in.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include <fmt/format.h>

#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

int compare(void*, int left_size, const void* left, int right_size, const void* right) {
  const int order =
      std::memcmp(left, right, static_cast<std::size_t>(std::min(left_size, right_size)));
  return order != 0 ? order : left_size - right_size;
}

void answer_null(sqlite3_context* context, int, sqlite3_value**) { sqlite3_result_null(context); }

// Arguments from the fourth on are those in the parentheses.
int connect(sqlite3* db, void*, int count, const char* const* arguments, sqlite3_vtab** table,
            char**) {
  std::string columns;
  for (int i = 3; i < count; ++i) {
    const Tokens tokens = tokenize(arguments[i]);
    const bool is_option =
        std::ranges::any_of(tokens, [](const Token& token) { return token.is_operator("="); });
    if (tokens.empty() || is_option || !tokens.front().is_name()) continue;
    columns += (columns.empty() ? "" : ", ") + quoted_name(tokens.front().name());
  }
  if (columns.empty()) columns = "value";
  const int code = sqlite3_declare_vtab(db, fmt::format("CREATE TABLE x({})", columns).c_str());
  if (code == SQLITE_OK) *table = new sqlite3_vtab();
  return code;
}
int disconnect(sqlite3_vtab* table) {
  delete table;
  return SQLITE_OK;
}
int best_index(sqlite3_vtab*, sqlite3_index_info*) { return SQLITE_OK; }
int open_cursor(sqlite3_vtab*, sqlite3_vtab_cursor** cursor) {
  *cursor = new sqlite3_vtab_cursor();
  return SQLITE_OK;
}
int close_cursor(sqlite3_vtab_cursor* cursor) {
  delete cursor;
  return SQLITE_OK;
}
int filter(sqlite3_vtab_cursor*, int, const char*, int, sqlite3_value**) { return SQLITE_OK; }
int next(sqlite3_vtab_cursor*) { return SQLITE_OK; }
int is_at_end(sqlite3_vtab_cursor*) { return 1; }
int column(sqlite3_vtab_cursor*, sqlite3_context*, int) { return SQLITE_OK; }
int row_id(sqlite3_vtab_cursor*, sqlite3_int64* number) {
  *number = 0;
  return SQLITE_OK;
}
int update(sqlite3_vtab*, int, sqlite3_value**, sqlite3_int64*) { return SQLITE_READONLY; }

const sqlite3_module* stand_in() {
  static const sqlite3_module module = [] {
    sqlite3_module made{};
    made.xCreate = made.xConnect = connect;
    made.xDisconnect = made.xDestroy = disconnect;
    made.xBestIndex = best_index;
    made.xOpen = open_cursor;
    made.xClose = close_cursor;
    made.xFilter = filter;
    made.xNext = next;
    made.xEof = is_at_end;
    made.xColumn = column;
    made.xRowid = row_id;
    made.xUpdate = update;
    return made;
  }();
  return &module;
}

}  // namespace

int add_stand_in_collation(sqlite3* db, const std::string& name) {
  return sqlite3_create_collation(db, name.c_str(), SQLITE_UTF8, nullptr, compare);
}

int add_stand_in_function(sqlite3* db, const std::string& name) {
  return sqlite3_create_function(db, name.c_str(), -1,
                                 SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS, nullptr,
                                 answer_null, nullptr, nullptr);
}

int add_stand_in_module(sqlite3* db, const std::string& name) {
  return sqlite3_create_module(db, name.c_str(), stand_in(), nullptr);
}

}  // namespace offprint::publication
