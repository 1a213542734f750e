#include "database/row_import.h"

#include <algorithm>
#include <cerrno>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "database/bare_number.h"
#include "database/import_request.h"
#include "database/sql_dump_plan.h"

namespace offprint::database {
namespace {

constexpr std::size_t kPlansMax = 1'000;  // sets of columns that are remembered

// Gathers the rows of a small result as text.
class TextRows final : public RowSink {
 public:
  void columns(const sqlite::Statement&) override {}
  Result<> row(const sqlite::Statement& row) override {
    std::vector<std::string>& texts = rows.emplace_back();
    for (int i = 0; i < row.column_count(); ++i) texts.emplace_back(row.column_text(i));
    return {};
  }
  std::vector<std::vector<std::string>> rows;
};

Result<std::vector<std::vector<std::string>>> read(Session& session, std::string sql,
                                                   std::vector<sqlite::Value> args) {
  SqlStatement statement;
  statement.sql = std::move(sql);
  statement.args = std::move(args);
  TextRows rows;
  OFFPRINT_TRY(session.execute(statement, rows));
  return std::move(rows.rows);
}

bool contains_ignoring_case(const std::string& text, const char* pattern) {
  return sqlite3_strlike((std::string("%") + pattern + "%").c_str(), text.c_str(), 0) == 0;
}

// As SQLite derives a column's affinity from its declared type.
bool has_text_affinity(const std::string& type) {
  return !contains_ignoring_case(type, "INT") &&
         (contains_ignoring_case(type, "CHAR") || contains_ignoring_case(type, "CLOB") ||
          contains_ignoring_case(type, "TEXT"));
}

bool same_name(const std::string& a, const std::string& b) {
  return sqlite3_stricmp(a.c_str(), b.c_str()) == 0;
}

// The table that rows go into, and the statements that put them there.
class TargetTable {
 public:
  struct Column {
    std::string name;
    bool is_text = false;       // bare numbers are texts in it, too
    bool is_generated = false;  // cannot be written
  };
  // For rows with the same columns.
  struct Plan {
    SqlStatement insert;
    std::vector<bool> is_text;
  };

  explicit TargetTable(const RowImportOptions& options) : options_(options) {}

  // Reads what the table is; nothing when it is absent.
  Result<> open(Session& session) {
    const std::string& table = options_.table;
    if (sqlite3_strnicmp(table.c_str(), "sqlite_", 7) == 0)
      return fail(Code::kInvalid, fmt::format("'{}' is SQLite's own table", table));
    OFFPRINT_TRY_ASSIGN(auto list, read(session,
                                        "SELECT type FROM pragma_table_list(?1) "
                                        "WHERE schema = 'main'",
                                        {table}));
    if (list.empty()) {
      if (options_.create) return {};
      return fail(Code::kNotFound,
                  fmt::format("there is no table '{}'; with create=1 it is made", table));
    }
    if (list[0][0] == "view")
      return fail(Code::kInvalid, fmt::format("'{}' is a view; rows go into tables", table));
    if (list[0][0] == "shadow") {
      return fail(Code::kInvalid,
                  fmt::format("'{}' is a part of a virtual table; import into that one", table));
    }
    OFFPRINT_TRY_ASSIGN(auto columns, read(session,
                                           "SELECT name, type, hidden FROM "
                                           "pragma_table_xinfo(?1, 'main') ORDER BY cid",
                                           {table}));
    for (std::vector<std::string>& column : columns) {
      if (column[2] == "1") continue;  // of a virtual table, not a part of its rows
      columns_.push_back({std::move(column[0]), has_text_affinity(column[1]), column[2] != "0"});
    }
    exists_ = true;
    return {};
  }

  bool exists() const { return exists_; }
  std::size_t writable_count() const {
    return static_cast<std::size_t>(std::count_if(
        columns_.begin(), columns_.end(), [](const Column& each) { return !each.is_generated; }));
  }

  Result<> create(Session& session, const std::vector<std::string>& names) {
    std::string list;
    for (const std::string& name : names) {
      if (!list.empty()) list += ',';
      list += quoted(name, '"');
      columns_.push_back({name, false, false});
    }
    OFFPRINT_TRY(execute(
        session, fmt::format("CREATE TABLE main.{}({})", quoted(options_.table, '"'), list)));
    exists_ = true;
    grows_ = true;
    return {};
  }

  // The statement for the row's columns. Valid until the next call.
  Result<Plan*> plan_for(Session& session, const FileRow& row) {
    if (last_ != nullptr && row.columns == last_columns_) return last_;
    auto found = plans_.find(row.columns);
    if (found == plans_.end()) {
      OFFPRINT_TRY_ASSIGN(Plan plan, make_plan(session, row));
      if (plans_.size() >= kPlansMax) plans_.clear();
      found = plans_.emplace(row.columns, std::move(plan)).first;
    }
    last_ = &found->second;
    last_columns_ = row.columns;
    return last_;
  }

 private:
  Result<Plan> make_plan(Session& session, const FileRow& row) {
    std::vector<const Column*> chosen;
    if (row.by_position) {
      for (const Column& column : columns_) {
        if (!column.is_generated) chosen.push_back(&column);
      }
    } else {
      OFFPRINT_TRY(add_missing(session, row.columns));
      for (const std::string& name : row.columns) {
        OFFPRINT_TRY_ASSIGN(const Column* column, find(name));
        if (std::find(chosen.begin(), chosen.end(), column) != chosen.end())
          return fail(Code::kInvalid, fmt::format("column '{}' comes twice", name));
        chosen.push_back(column);
      }
    }
    Plan plan;
    std::string list;
    std::string values;
    for (const Column* column : chosen) {
      if (!list.empty()) list += ',', values += ',';
      list += quoted(column->name, '"');
      values += '?';
      plan.is_text.push_back(column->is_text);
    }
    std::string what =
        list.empty() ? " DEFAULT VALUES" : fmt::format("({}) VALUES({})", list, values);
    plan.insert.sql =
        fmt::format("INSERT {}INTO main.{}{}", conflict_words(), quoted(options_.table, '"'), what);
    return plan;
  }

  // A table that this import has made gets the columns that further rows name.
  Result<> add_missing(Session& session, const std::vector<std::string>& names) {
    if (!grows_) return {};
    for (const std::string& name : names) {
      if (find(name)) continue;
      OFFPRINT_TRY(execute(session, fmt::format("ALTER TABLE main.{} ADD COLUMN {}",
                                                quoted(options_.table, '"'), quoted(name, '"'))));
      columns_.push_back({name, false, false});
    }
    return {};
  }

  Result<const Column*> find(const std::string& name) const {
    for (const Column& column : columns_) {
      if (!same_name(column.name, name)) continue;
      if (column.is_generated)
        return fail(Code::kInvalid, fmt::format("column '{}' is a generated one", name));
      return &column;
    }
    return fail(Code::kInvalid,
                fmt::format("there is no column '{}' in table '{}'", name, options_.table));
  }

  std::string_view conflict_words() const {
    using OnConflict = RowImportOptions::OnConflict;
    return options_.on_conflict == OnConflict::kIgnore    ? "OR IGNORE "
           : options_.on_conflict == OnConflict::kReplace ? "OR REPLACE "
                                                          : "";
  }

  const RowImportOptions& options_;
  std::vector<Column> columns_;
  bool exists_ = false;
  bool grows_ = false;
  std::map<std::vector<std::string>, Plan> plans_;
  Plan* last_ = nullptr;  // in plans_
  std::vector<std::string> last_columns_;
};

Error at_line(const Error& error, std::uint64_t line) {
  return Error(error.code(), fmt::format("line {}: {}", line, error.message()),
               error.sqlite_code());
}

class RowsRequest final : public ImportRequest {
 public:
  RowsRequest(std::FILE* file, const RowImportOptions& options, Promise& promise)
      : ImportRequest(file, promise), options_(options) {}

 private:
  Result<> import(Session& session) override {
    OFFPRINT_TRY(execute(session, "BEGIN IMMEDIATE"));
    // Children may come before their parents.
    OFFPRINT_TRY(execute(session, "PRAGMA defer_foreign_keys=ON"));
    TargetTable table(options_);
    OFFPRINT_TRY(table.open(session));
    std::unique_ptr<RowReader> reader = options_.reader(file());
    OFFPRINT_TRY(reader->begin(table.exists() ? table.writable_count() : 0));
    if (!table.exists() && !reader->columns().empty())
      OFFPRINT_TRY(table.create(session, reader->columns()));
    LoadReporter reporter(file(), options_.watcher);
    FileRow row;
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool more, reader->next(row));
      if (!more) break;
      auto changes = insert(session, table, row);
      if (!changes) return fail(at_line(changes.error(), row.line));
      ++reporter.progress.statements;
      reporter.progress.rows += static_cast<std::uint64_t>(*changes);
      if (!reporter.report()) return cancelled();
    }
    result().statements = reporter.progress.statements;
    result().rows = reporter.progress.rows;
    return commit(session);
  }

  Result<std::int64_t> insert(Session& session, TargetTable& table, FileRow& row) {
    if (!table.exists()) {
      if (row.columns.empty())
        return fail(Code::kInvalid, "the first row names no columns to make a table of");
      OFFPRINT_TRY(table.create(session, row.columns));
    }
    OFFPRINT_TRY_ASSIGN(TargetTable::Plan * plan, table.plan_for(session, row));
    if (row.cells.size() != plan->is_text.size()) {
      return fail(Code::kInvalid,
                  fmt::format("{} values, but {} columns", row.cells.size(), plan->is_text.size()));
    }
    std::vector<sqlite::Value>& values = plan->insert.args;
    values.resize(row.cells.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      Cell& cell = row.cells[i];
      values[i] = std::move(cell.value);
      if (!cell.bare || plan->is_text[i]) continue;
      if (auto number = bare_number(std::get<std::string>(values[i]))) values[i] = *number;
    }
    DropRows rows;
    OFFPRINT_TRY_ASSIGN(StatementResult ran, session.execute(plan->insert, rows));
    return ran.changes;
  }

  Result<> commit(Session& session) {
    auto committed = execute(session, "COMMIT");
    if (committed) return {};
    Error error = committed.error();
    if (error.sqlite_code() != SQLITE_CONSTRAINT_FOREIGNKEY) return fail(std::move(error));
    // Which row it is only its key tells by now.
    auto broken = read(session, "SELECT rowid, parent FROM pragma_foreign_key_check(?1) LIMIT 1",
                       {options_.table});
    if (!broken || broken->empty()) return fail(std::move(error));
    const std::vector<std::string>& row = broken->front();
    return fail(
        Error(error.code(),
              fmt::format("{}: the row{} of '{}' refers to no row of '{}'", error.message(),
                          row[0].empty() ? "" : " with rowid " + row[0], options_.table, row[1]),
              error.sqlite_code()));
  }

  const RowImportOptions& options_;
};

}  // namespace

Result<ImportResult> import_rows(Store& store, const DatabaseName& name, const std::string& path,
                                 const RowImportOptions& options) {
  FileHandle file(std::fopen(path.c_str(), "rbe"));
  if (!file) return fail(io_error("open " + path, errno));
  ImportRequest::Promise promise;
  auto future = promise.get_future();
  store.submit(name, std::make_unique<RowsRequest>(file.get(), options, promise));
  return future.get();
}

}  // namespace offprint::database
