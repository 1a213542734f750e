#pragma once

#include <string>

#include <sqlite3.h>

// Stand-ins for what a schema needs and SQLite lacks: enough to compile, not to answer.
namespace offprint::publication {

// The module that a virtual table may use in place of its own.
inline constexpr const char* kStandInModule = "offprint_stand_in";

// Each returns an SQLite result code. A virtual table of such a module has its arguments without
// "=" as columns, and no rows.
int add_stand_in_collation(sqlite3* db, const std::string& name);
int add_stand_in_function(sqlite3* db, const std::string& name);
int add_stand_in_module(sqlite3* db, const std::string& name);

}  // namespace offprint::publication
