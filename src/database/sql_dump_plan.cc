#include "database/sql_dump_plan.h"

#include <algorithm>
#include <cctype>

#include <fmt/format.h>

#include "database/sql_text.h"

namespace offprint::database {
namespace {

bool same_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() &&
         sqlite3_strnicmp(a.data(), b.data(), static_cast<int>(a.size())) == 0;
}

// Where the quoted text that begins at `at` ends: behind its closing quote.
std::size_t end_of_quoted(std::string_view sql, std::size_t at) {
  char close = sql[at] == '[' ? ']' : sql[at];
  for (std::size_t i = at + 1; i < sql.size(); ++i) {
    if (sql[i] != close) continue;
    if (close == ']' || i + 1 == sql.size() || sql[i + 1] != close) return i + 1;
    ++i;
  }
  return sql.size();
}

bool is_quote(char c) { return c == '\'' || c == '"' || c == '`' || c == '['; }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())))
    text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())))
    text.remove_suffix(1);
  return text;
}

std::string unquoted(std::string_view text) {
  text = trimmed(text);
  if (text.size() < 2 || !is_quote(text.front())) return std::string(text);
  char close = text.front() == '[' ? ']' : text.front();
  std::string result;
  for (std::size_t i = 1; i + 1 < text.size(); ++i) {
    result += text[i];
    if (text[i] == close && text[i + 1] == close) ++i;
  }
  return result;
}

// Takes the next name or word from `sql`.
std::string_view take_word(std::string_view& sql) {
  sql = skip_blanks(sql);
  std::size_t end = 0;
  if (!sql.empty() && is_quote(sql[0])) {
    end = end_of_quoted(sql, 0);
  } else {
    while (end < sql.size() &&
           (std::isalnum(static_cast<unsigned char>(sql[end])) || sql[end] == '_' ||
            sql[end] == '$' || static_cast<unsigned char>(sql[end]) >= 0x80))
      ++end;
  }
  std::string_view word = sql.substr(0, end);
  sql.remove_prefix(end);
  return word;
}

}  // namespace

VirtualTable parse_virtual_table(std::string_view sql) {
  VirtualTable table;
  for (int i = 0; i < 5; ++i) take_word(sql);  // CREATE VIRTUAL TABLE name USING
  table.module = unquoted(take_word(sql));
  std::transform(table.module.begin(), table.module.end(), table.module.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  sql = skip_blanks(sql);
  if (sql.empty() || sql[0] != '(') return table;
  std::size_t begin = 1;
  int depth = 0;
  for (std::size_t i = 1; i < sql.size(); ++i) {
    char c = sql[i];
    if (is_quote(c)) {
      i = end_of_quoted(sql, i) - 1;
    } else if (c == '(') {
      ++depth;
    } else if ((c == ')' && depth == 0) || (c == ',' && depth == 0)) {
      table.arguments.emplace_back(trimmed(sql.substr(begin, i - begin)));
      begin = i + 1;
      if (c == ')') break;
    } else if (c == ')') {
      --depth;
    }
  }
  return table;
}

std::optional<std::string> VirtualTable::option(std::string_view name) const {
  for (const std::string& argument : arguments) {
    std::size_t equals = argument.find('=');
    if (equals == std::string::npos) continue;
    if (same_name(trimmed(std::string_view(argument).substr(0, equals)), name))
      return unquoted(std::string_view(argument).substr(equals + 1));
  }
  return std::nullopt;
}

Result<std::vector<SqlDump::Step>> SqlDumpPlan::make() {
  OFFPRINT_TRY(read_schema());
  OFFPRINT_TRY(check_names());
  OFFPRINT_TRY(add_head());
  OFFPRINT_TRY(add_tables());
  if (options_.data) add_statistics_and_sequences();
  if (options_.schema) add_programs("index");
  if (options_.schema) add_programs("view");
  OFFPRINT_TRY(add_virtual_tables());
  if (options_.schema) add_programs("trigger");
  OFFPRINT_TRY(add_tail());
  return std::move(steps_);
}

Result<> SqlDumpPlan::read_schema() {
  OFFPRINT_TRY_ASSIGN(auto rows, db_.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema "
                                             "WHERE sql IS NOT NULL ORDER BY rowid"));
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool row, rows.step());
    if (!row) break;
    entries_.push_back({std::string(rows.column_text(0)), std::string(rows.column_text(1)),
                        std::string(rows.column_text(2)), std::string(rows.column_text(3)), "",
                        false});
  }
  OFFPRINT_TRY_ASSIGN(
      auto list, db_.prepare("SELECT type, wr FROM pragma_table_list(?1) WHERE schema = 'main'"));
  for (Entry& entry : entries_) {
    if (entry.type != "table") continue;
    list.bind_text(1, entry.name);
    OFFPRINT_TRY_ASSIGN(bool found, list.step());
    entry.kind = found ? list.column_text(0) : std::string_view("table");
    entry.without_rowid = found && list.column_int(1) != 0;
    list.reset();
    // One whose module is not here.
    if (sqlite3_strlike("CREATE VIRTUAL TABLE%", entry.sql.c_str(), 0) == 0) entry.kind = "virtual";
  }
  return {};
}

Result<> SqlDumpPlan::check_names() const {
  for (const std::string& name : options_.tables) {
    bool found = std::any_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
      return (entry.type == "table" || entry.type == "view") && same_name(entry.name, name);
    });
    if (!found) return fail(Code::kNotFound, fmt::format("no such table: {}", name));
  }
  return {};
}

bool SqlDumpPlan::chosen(const Entry& entry) const {
  if (options_.tables.empty()) return true;
  const Entry* owner = entry.kind == "shadow" ? owner_of_shadow(entry) : nullptr;
  const std::string& table = owner != nullptr ? owner->name : entry.table;
  return std::any_of(options_.tables.begin(), options_.tables.end(),
                     [&](const std::string& name) { return same_name(name, table); });
}

const SqlDumpPlan::Entry* SqlDumpPlan::owner_of_shadow(const Entry& entry) const {
  std::size_t cut = entry.name.rfind('_');
  if (cut == std::string::npos) return nullptr;
  std::string_view owner = std::string_view(entry.name).substr(0, cut);
  for (const Entry& other : entries_) {
    if (other.kind == "virtual" && same_name(other.name, owner)) return &other;
  }
  return nullptr;
}

// FTS5 without its texts cannot be filled by INSERT: what it keeps is copied as it is, as that of
// modules unknown here.
SqlDumpPlan::Content SqlDumpPlan::content_of(const Entry& entry) const {
  VirtualTable table = parse_virtual_table(entry.sql);
  if (table.module == "fts5vocab" || table.module == "dbstat" || table.module == "sqlite_dbpage")
    return Content::kNone;
  if (table.module == "rtree" || table.module == "rtree_i32") return Content::kRows;
  if (table.module != "fts5") return Content::kShadow;
  if (auto content = table.option("content"))
    return content->empty() ? Content::kShadow : Content::kRebuild;
  if (table.option("locale").value_or("0") != "0") return Content::kShadow;
  return Content::kRows;
}

Result<> SqlDumpPlan::add_head() {
  if (options_.transaction) {
    OFFPRINT_TRY_ASSIGN(auto page_size, db_.query_int("PRAGMA page_size"));
    OFFPRINT_TRY_ASSIGN(auto encoding, db_.query_text("PRAGMA encoding"));
    OFFPRINT_TRY_ASSIGN(auto auto_vacuum, db_.query_int("PRAGMA auto_vacuum"));
    if (options_.schema && page_size != 4096) add(fmt::format("PRAGMA page_size={};\n", page_size));
    if (options_.schema && encoding != "UTF-8")
      add(fmt::format("PRAGMA encoding='{}';\n", encoding));
    if (options_.schema && auto_vacuum != 0)
      add(fmt::format("PRAGMA auto_vacuum={};\n", auto_vacuum));
    add("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n");
  }
  add("PRAGMA defer_foreign_keys=ON;\n");
  return {};
}

// A comment that stands at the end must not swallow the semicolon.
void SqlDumpPlan::add_sql(std::string_view sql) {
  for (const char* end : {";", "\n;", "*/;"}) {
    std::string text = std::string(sql) + end;
    if (sqlite3_complete(text.c_str()) == 0) continue;
    return add(text + "\n");
  }
  add(std::string(sql) + ";\n");
}

Result<> SqlDumpPlan::add_tables() {
  std::vector<const Entry*> tables;
  for (const Entry& entry : entries_) {
    if (entry.type != "table" || entry.kind == "virtual" || entry.name.starts_with("sqlite_") ||
        !chosen(entry))
      continue;
    if (entry.kind == "shadow") {
      const Entry* owner = owner_of_shadow(entry);
      bool whole = options_.schema && options_.data;
      if (owner != nullptr && (content_of(*owner) != Content::kShadow || !whole)) continue;
    }
    tables.push_back(&entry);
  }
  if (options_.schema) {
    for (const Entry* entry : tables) add_sql(entry->sql);
  }
  if (!options_.data) return {};
  for (const Entry* entry : tables) OFFPRINT_TRY(add_rows(*entry));
  return {};
}

// The name by which the rowid can be read and set; empty where it is a column already, or there is
// none.
Result<std::string> SqlDumpPlan::rowid_name(const Entry& entry) {
  if (entry.without_rowid) return std::string();
  if (entry.kind == "virtual") {
    bool is_rtree = parse_virtual_table(entry.sql).module.starts_with("rtree");
    return std::string(is_rtree ? "" : "rowid");
  }
  OFFPRINT_TRY_ASSIGN(
      auto query, db_.prepare("SELECT (SELECT count(*) FROM pragma_table_xinfo(?1) WHERE pk > 0), "
                              "(SELECT count(*) FROM pragma_index_list(?1) WHERE origin = 'pk')"));
  query.bind_text(1, entry.name);
  OFFPRINT_TRY(query.step());
  // A primary key that needs no index is the rowid itself.
  if (query.column_int(0) == 1 && query.column_int(1) == 0) return std::string();
  for (const char* name : {"rowid", "_rowid_", "oid"}) {
    OFFPRINT_TRY_ASSIGN(auto taken,
                        db_.prepare("SELECT 1 FROM pragma_table_xinfo(?1) WHERE lower(name) = ?2"));
    taken.bind_text(1, entry.name);
    taken.bind_text(2, name);
    OFFPRINT_TRY_ASSIGN(bool found, taken.step());
    if (!found) return std::string(name);
  }
  return std::string();
}

// The columns that hold values of their own: generated ones are computed again.
Result<> SqlDumpPlan::add_rows(const Entry& entry) {
  OFFPRINT_TRY_ASSIGN(std::string list, rowid_name(entry));
  OFFPRINT_TRY_ASSIGN(auto info,
                      db_.prepare("SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0"));
  info.bind_text(1, entry.name);
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool row, info.step());
    if (!row) break;
    if (!list.empty()) list += ',';
    list += quoted(info.column_text(0), '"');
  }
  std::string table = quoted(entry.name, '"');
  steps_.push_back({fmt::format("INSERT INTO {}({}) VALUES(", table, list),
                    fmt::format("SELECT {} FROM {}", list, table)});
  return {};
}

std::string SqlDumpPlan::name_list() const {
  std::string list;
  for (const std::string& name : options_.tables) {
    if (!list.empty()) list += ',';
    list += quoted(name, '\'');
  }
  return list;
}

// Only what every SQLite knows: sqlite_stat4 is made again by ANALYZE.
void SqlDumpPlan::add_statistics_and_sequences() {
  auto has = [&](std::string_view name) {
    return std::any_of(entries_.begin(), entries_.end(),
                       [&](const Entry& entry) { return entry.name == name; });
  };
  auto where = [&](std::string_view column) {
    return options_.tables.empty()
               ? std::string()
               : fmt::format(" WHERE {} COLLATE NOCASE IN ({})", column, name_list());
  };
  if (has("sqlite_sequence")) {
    add(fmt::format("DELETE FROM sqlite_sequence{};\n", where("name")));
    steps_.push_back({"INSERT INTO sqlite_sequence(name,seq) VALUES(",
                      "SELECT name, seq FROM sqlite_sequence" + where("name")});
  }
  if (has("sqlite_stat1") && options_.schema) {
    add("ANALYZE sqlite_schema;\n");
    add(fmt::format("DELETE FROM sqlite_stat1{};\n", where("tbl")));
    steps_.push_back({"INSERT INTO sqlite_stat1(tbl,idx,stat) VALUES(",
                      "SELECT tbl, idx, stat FROM sqlite_stat1" + where("tbl")});
  }
}

void SqlDumpPlan::add_programs(std::string_view type) {
  for (const Entry& entry : entries_) {
    if (entry.type == type && chosen(entry)) add_sql(entry.sql);
  }
}

// After the views, which may be what a full-text table indexes.
Result<> SqlDumpPlan::add_virtual_tables() {
  for (const Entry& entry : entries_) {
    if (entry.kind != "virtual" || !chosen(entry)) continue;
    Content content = content_of(entry);
    if (content == Content::kShadow && options_.data) {
      if (!options_.schema) continue;
      std::string name = quoted(entry.name, '\'');
      add("PRAGMA writable_schema=ON;\n");
      add(
          fmt::format("INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql) "
                      "VALUES('table',{},{},0,{});\n",
                      name, name, quoted(entry.sql, '\'')));
      add("PRAGMA writable_schema=RESET;\n");
      continue;
    }
    if (options_.schema) add_sql(entry.sql);
    if (!options_.data || content == Content::kNone) continue;
    if (parse_virtual_table(entry.sql).module == "fts5") OFFPRINT_TRY(add_fts_settings(entry));
    if (content == Content::kRows) OFFPRINT_TRY(add_rows(entry));
    if (content == Content::kRebuild) {
      std::string table = quoted(entry.name, '"');
      add(fmt::format("INSERT INTO {}({}) VALUES('rebuild');\n", table, table));
    }
  }
  return {};
}

Result<> SqlDumpPlan::add_fts_settings(const Entry& entry) {
  std::string table = quoted(entry.name, '"');
  steps_.push_back({fmt::format("INSERT INTO {}({},rank) VALUES(", table, table),
                    fmt::format("SELECT k, v FROM {} WHERE k <> 'version'",
                                quoted(entry.name + "_config", '"'))});
  return {};
}

Result<> SqlDumpPlan::add_tail() {
  bool whole = options_.transaction && options_.schema && options_.tables.empty();
  for (const char* field : {"user_version", "application_id"}) {
    if (!whole) break;
    OFFPRINT_TRY_ASSIGN(auto value, db_.query_int(fmt::format("PRAGMA {}", field).c_str()));
    if (value != 0) add(fmt::format("PRAGMA {}={};\n", field, value));
  }
  if (options_.transaction) add("COMMIT;\n");
  return {};
}

}  // namespace offprint::database
