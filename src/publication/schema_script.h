#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sqlite/connection.h"

// A schema as the statements that make it, wherever it comes from.
namespace offprint::publication {

// In a script, counted from 1; columns are bytes.
struct Place {
  std::size_t line = 0, column = 0;
};

struct ScriptComment {
  std::string text;
  Place place;
};

struct SchemaStatement {
  std::string sql;
  std::size_t offset = 0;               // in the script
  Place place;                          // of its first word
  std::vector<ScriptComment> comments;  // before it (behind the statement before) and within it
};

struct SchemaScript {
  std::string label;      // as findings name it: a path, a database's name
  std::string text;       // whole; empty when it was read from a database
  bool has_lines = true;  // places mean something to its reader
  std::vector<SchemaStatement> statements;
  std::vector<ScriptComment> last_comments;  // behind the last statement

  Place place_at(std::size_t offset) const;
};

// kInvalid "line N: …": not SQL. Statements are not looked into.
Result<SchemaScript> script_of_text(std::string label, std::string text, bool has_lines = true);

// An SQLite file or a script, told apart by the first bytes. kNotFound, kIo; kCorrupt: no database.
Result<SchemaScript> script_of_file(const std::string& path);

bool is_database_file(const std::string& path);
// Opens an SQLite file for reading. Leaves nothing beside it: a file in WAL mode that nobody has
// open is read as immutable.
Result<sqlite::Connection> open_database_file(const std::string& path);

}  // namespace offprint::publication
