#include "publication/schema_script.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <utility>

#include <fmt/format.h>

#include "database/script_reader.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

constexpr std::string_view kMagic("SQLite format 3\0", 16);
constexpr std::size_t kReadVersionOffset = 19;  // of the file's header; 2: WAL
constexpr int kBusyTimeoutMs = 5'000;

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

std::string first_bytes(const std::string& path) {
  std::string bytes(kReadVersionOffset + 1, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<std::size_t>(file.gcount()));
  return bytes;
}

void add_comments(const SchemaScript& script, std::size_t begin, std::size_t end,
                  std::vector<ScriptComment>& to) {
  const std::string_view part = std::string_view(script.text).substr(begin, end - begin);
  for (const Token& token : tokenize(part, true)) {
    if (token.kind == Token::Kind::kComment)
      to.push_back({std::string(token.text), script.place_at(begin + token.offset)});
  }
}

// Comments within what a database has stored.
Result<> add_stored_statements(sqlite::Connection& db, SchemaScript& script) {
  // Lets an unreadable statement be read all the same: it is ours to say what is wrong with it.
  OFFPRINT_TRY(db.execute("PRAGMA writable_schema = ON"));
  OFFPRINT_TRY_ASSIGN(
      auto rows,
      db.prepare("SELECT s.sql FROM main.sqlite_schema s WHERE s.sql IS NOT NULL"
                 " AND substr(s.name, 1, 7) <> 'sqlite_' AND s.name NOT IN"
                 " (SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow')"
                 " ORDER BY CASE s.type WHEN 'table' THEN 1 WHEN 'index' THEN 2"
                 " WHEN 'view' THEN 3 ELSE 4 END, s.rowid"));
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool row, rows.step());
    if (!row) return {};
    SchemaStatement statement;
    statement.sql = rows.column_text(0);
    for (const Token& token : tokenize(statement.sql, true)) {
      if (token.kind == Token::Kind::kComment)
        statement.comments.push_back({std::string(token.text), {}});
    }
    script.statements.push_back(std::move(statement));
  }
}

}  // namespace

Place SchemaScript::place_at(std::size_t offset) const {
  const std::string_view before = std::string_view(text).substr(0, offset);
  const std::size_t last = before.rfind('\n');
  return {static_cast<std::size_t>(std::ranges::count(before, '\n')) + 1,
          last == std::string_view::npos ? before.size() + 1 : before.size() - last};
}

Result<SchemaScript> script_of_text(std::string label, std::string text, bool has_lines) {
  SchemaScript script;
  script.label = std::move(label);
  script.text = std::move(text);
  script.has_lines = has_lines;
  if (script.text.empty()) return script;
  std::unique_ptr<std::FILE, CloseFile> file(
      ::fmemopen(script.text.data(), script.text.size(), "rb"));
  if (!file) return fail(Code::kIo, script.label + ": cannot be read");
  database::ScriptReader reader(file.get());
  std::size_t end = 0;
  for (;;) {
    auto next = reader.next();
    if (!next) return fail(next.error().with_context(script.label));
    if (!*next) break;
    SchemaStatement statement;
    statement.sql = std::move((*next)->sql);
    statement.offset = script.text.find(statement.sql, end);
    statement.place = script.place_at(statement.offset);
    const std::size_t behind = statement.offset + statement.sql.size();
    add_comments(script, end, behind, statement.comments);
    end = behind;
    script.statements.push_back(std::move(statement));
  }
  add_comments(script, end, script.text.size(), script.last_comments);
  return script;
}

bool is_database_file(const std::string& path) { return first_bytes(path).starts_with(kMagic); }

Result<sqlite::Connection> open_database_file(const std::string& path) {
  const std::string head = first_bytes(path);
  const bool is_wal = head.size() > kReadVersionOffset && head[kReadVersionOffset] == 2;
  sqlite::Connection::Options options;
  options.read_only = true;
  options.busy_timeout_ms = kBusyTimeoutMs;
  options.immutable = is_wal && !std::filesystem::exists(path + "-wal");
  return sqlite::Connection::open(path, options);
}

Result<SchemaScript> script_of_file(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error))
    return fail(Code::kNotFound, path + ": no such file");
  if (!is_database_file(path)) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    if (!file && !file.eof()) return fail(Code::kIo, path + ": cannot be read");
    return script_of_text(path, text.str());
  }
  OFFPRINT_TRY_ASSIGN(auto db, open_database_file(path));
  SchemaScript script;
  script.label = path;
  script.has_lines = false;
  if (auto added = add_stored_statements(db, script); !added)
    return fail(added.error().with_context(path));
  return script;
}

}  // namespace offprint::publication
