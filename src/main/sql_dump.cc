#include <cerrno>
#include <cmath>
#include <vector>

#include <fmt/format.h>

#include "main/sql_file.h"
#include "server/json_writer.h"

namespace offprint {
namespace {

std::string quoted(std::string_view text, char quote) {
  std::string result(1, quote);
  for (char c : text) {
    if (c == quote) result += quote;
    result += c;
  }
  result += quote;
  return result;
}

// A literal that cannot hold a NUL is put together around it.
std::string text_literal(std::string_view text) {
  std::string result;
  for (;;) {
    std::size_t nul = text.find('\0');
    result += quoted(text.substr(0, nul), '\'');
    if (nul == std::string_view::npos) return result;
    result += "||char(0)||";
    text.remove_prefix(nul + 1);
  }
}

std::string real_literal(double value) {
  if (std::isinf(value)) return value > 0 ? "9e999" : "-9e999";
  std::string text;
  server::append_double(text, value);
  return text;
}

std::string literal(const sqlite::Statement& row, int column) {
  switch (row.column_type(column)) {
    case SQLITE_INTEGER:
      return std::to_string(row.column_int(column));
    case SQLITE_FLOAT:
      return real_literal(row.column_double(column));
    case SQLITE_TEXT:
      return text_literal(row.column_text(column));
    case SQLITE_BLOB:
      return "x'" + to_hex(row.column_blob(column)) + "'";
    default:
      return "NULL";
  }
}

class ScriptWriter {
 public:
  ScriptWriter(sqlite::Connection& db, std::FILE* to) : db_(db), to_(to) {}

  Result<> run() {
    OFFPRINT_TRY(db_.execute("BEGIN"));
    OFFPRINT_TRY(write_settings());
    OFFPRINT_TRY(write_tables());
    OFFPRINT_TRY(write_programs());
    OFFPRINT_TRY(write_header_fields());
    put("COMMIT;\n");
    OFFPRINT_TRY(db_.execute("COMMIT"));
    if (std::fflush(to_) != 0 || std::ferror(to_)) return fail(io_error("write the script", errno));
    return {};
  }

 private:
  void put(std::string_view text) { std::fwrite(text.data(), 1, text.size(), to_); }

  Result<> write_settings() {
    OFFPRINT_TRY_ASSIGN(auto page_size, db_.query_int("PRAGMA page_size"));
    OFFPRINT_TRY_ASSIGN(auto encoding, db_.query_text("PRAGMA encoding"));
    OFFPRINT_TRY_ASSIGN(auto auto_vacuum, db_.query_int("PRAGMA auto_vacuum"));
    if (page_size != 4096) put(fmt::format("PRAGMA page_size={};\n", page_size));
    if (encoding != "UTF-8") put(fmt::format("PRAGMA encoding='{}';\n", encoding));
    if (auto_vacuum != 0) put(fmt::format("PRAGMA auto_vacuum={};\n", auto_vacuum));
    put("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n");
    return {};
  }

  Result<> write_tables() {
    // sqlite_sequence comes into being with the first AUTOINCREMENT table.
    OFFPRINT_TRY_ASSIGN(auto tables,
                        db_.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'table' "
                                    "ORDER BY name = 'sqlite_sequence', rowid"));
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool row, tables.step());
      if (!row) return {};
      std::string name(tables.column_text(0)), sql(tables.column_text(1));
      if (name == "sqlite_sequence") {
        put("DELETE FROM sqlite_sequence;\n");
      } else if (name.starts_with("sqlite_stat")) {
        put("ANALYZE sqlite_schema;\n");
      } else if (name.starts_with("sqlite_")) {
        continue;
      } else if (sqlite3_strlike("CREATE VIRTUAL TABLE%", sql.c_str(), 0) == 0) {
        write_virtual_table(name, sql);
        continue;
      } else {
        put(sql + ";\n");
      }
      OFFPRINT_TRY(write_rows(name));
    }
  }

  // Its content stands in shadow tables, which are written as tables.
  void write_virtual_table(const std::string& name, const std::string& sql) {
    if (!writable_schema_) put("PRAGMA writable_schema=ON;\n");
    writable_schema_ = true;
    std::string text = text_literal(name);
    put(fmt::format(
        "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql) VALUES('table',{},{},0,{});\n",
        text, text, text_literal(sql)));
  }

  // The columns that hold values of their own: generated ones are computed again.
  Result<std::vector<std::string>> stored_columns(const std::string& table) {
    OFFPRINT_TRY_ASSIGN(auto info,
                        db_.prepare("SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0"));
    info.bind_text(1, table);
    std::vector<std::string> columns;
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool row, info.step());
      if (!row) return columns;
      columns.emplace_back(info.column_text(0));
    }
  }

  // The name by which the rowid can be read and set; empty where it is a column already, or there
  // is none.
  Result<std::string> rowid_name(const std::string& table) {
    OFFPRINT_TRY_ASSIGN(
        auto query,
        db_.prepare(
            "SELECT (SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1), "
            "(SELECT count(*) FROM pragma_table_xinfo(?1) WHERE pk > 0), "
            "(SELECT count(*) FROM pragma_index_list(?1) WHERE origin = 'pk')"));
    query.bind_text(1, table);
    OFFPRINT_TRY(query.step());
    bool without_rowid = query.column_int(0) != 0;
    // A primary key that needs no index is the rowid itself.
    bool is_alias = query.column_int(1) == 1 && query.column_int(2) == 0;
    if (without_rowid || is_alias || table.starts_with("sqlite_")) return std::string();
    for (const char* name : {"rowid", "_rowid_", "oid"}) {
      OFFPRINT_TRY_ASSIGN(
          auto taken, db_.prepare("SELECT 1 FROM pragma_table_xinfo(?1) WHERE lower(name) = ?2"));
      taken.bind_text(1, table);
      taken.bind_text(2, name);
      OFFPRINT_TRY_ASSIGN(bool found, taken.step());
      if (!found) return std::string(name);
    }
    return std::string();
  }

  Result<> write_rows(const std::string& table) {
    OFFPRINT_TRY_ASSIGN(auto columns, stored_columns(table));
    OFFPRINT_TRY_ASSIGN(auto rowid, rowid_name(table));
    std::string list = rowid;
    for (const std::string& column : columns) {
      if (!list.empty()) list += ',';
      list += quoted(column, '"');
    }
    std::string insert = fmt::format("INSERT INTO {}({}) VALUES(", quoted(table, '"'), list);
    OFFPRINT_TRY_ASSIGN(auto rows,
                        db_.prepare(fmt::format("SELECT {} FROM {}", list, quoted(table, '"'))));
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool row, rows.step());
      if (!row) return {};
      std::string line = insert;
      for (int i = 0; i < rows.column_count(); ++i) {
        if (i > 0) line += ',';
        line += literal(rows, i);
      }
      put(line + ");\n");
    }
  }

  // Indexes, triggers and views: after the rows, which must not fire or pay for them.
  Result<> write_programs() {
    OFFPRINT_TRY_ASSIGN(
        auto entries,
        db_.prepare("SELECT sql FROM sqlite_schema WHERE type IN "
                    "('index', 'trigger', 'view') AND sql IS NOT NULL ORDER BY rowid"));
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool row, entries.step());
      if (!row) break;
      put(std::string(entries.column_text(0)) + ";\n");
    }
    if (writable_schema_) put("PRAGMA writable_schema=OFF;\n");
    return {};
  }

  Result<> write_header_fields() {
    for (const char* field : {"user_version", "application_id"}) {
      OFFPRINT_TRY_ASSIGN(auto value, db_.query_int(fmt::format("PRAGMA {}", field).c_str()));
      if (value != 0) put(fmt::format("PRAGMA {}={};\n", field, value));
    }
    return {};
  }

  sqlite::Connection& db_;
  std::FILE* to_;
  bool writable_schema_ = false;
};

}  // namespace

Result<> dump_script(sqlite::Connection& database, std::FILE* to) {
  return ScriptWriter(database, to).run();
}

}  // namespace offprint
