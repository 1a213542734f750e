// What the rules tell on a sample of rows: those that the new schema refuses, and views and queries
// that answer otherwise.
#include <algorithm>
#include <iterator>
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/contract_context.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

constexpr int kRowsMax = 100'000;  // of one table or result
constexpr int kSteps = 200'000'000;

std::string in_quotes(std::string_view name) {
  std::string text = "\"";
  for (char c : name) text += c == '"' ? "\"\"" : std::string(1, c);
  return text + '"';
}

struct Refused {
  int count = 0;
  std::string message;  // of the first
};

// Puts the sample's rows into both schemas, as far as they have the tables and columns.
class Loader {
 public:
  Loader(Context& context, const Schema& sample) : context_(context), sample_(sample) {}

  Result<> load() {
    for (ScratchDatabase* database : {&context_.old_database, &context_.new_database}) {
      sqlite3_db_config(database->db().handle(), SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
      OFFPRINT_TRY(database->db().execute("BEGIN"));
    }
    for (const auto& [name, table] : sample_.tables) {
      if (table.kind == Table::Kind::kTable) OFFPRINT_TRY(load_table(name, table));
    }
    for (ScratchDatabase* database : {&context_.old_database, &context_.new_database}) {
      OFFPRINT_TRY(database->db().execute("COMMIT"));
      sqlite3_db_config(database->db().handle(), SQLITE_DBCONFIG_ENABLE_TRIGGER, 1, nullptr);
    }
    return report_orphans();
  }

 private:
  struct Target {
    sqlite::Statement insert;
    std::vector<int> columns;  // of the sample's row
  };

  static Result<Target> target(ScratchDatabase& database, const std::string& name,
                               const Table& from) {
    Target to;
    const Table* table = database.schema().table(name);
    if (table == nullptr || table->kind != Table::Kind::kTable) return to;
    std::vector<std::string> names, marks;
    for (std::size_t i = 0; i < from.columns.size(); ++i) {
      const Column* column = table->column(from.columns[i].name);
      if (column == nullptr || column->generated) continue;
      names.push_back(in_quotes(column->name));
      marks.emplace_back("?");
      to.columns.push_back(static_cast<int>(i));
    }
    if (names.empty()) return to;
    OFFPRINT_TRY_ASSIGN(
        to.insert, database.db().prepare(fmt::format("INSERT INTO main.{}({}) VALUES ({})",
                                                     in_quotes(table->name), fmt::join(names, ", "),
                                                     fmt::join(marks, ", "))));
    return to;
  }

  static Result<> put(Target& to, sqlite::Statement& row) {
    if (!to.insert) return {};
    for (std::size_t i = 0; i < to.columns.size(); ++i)
      sqlite3_bind_value(to.insert.handle(), static_cast<int>(i) + 1,
                         sqlite3_column_value(row.handle(), to.columns[i]));
    return to.insert.run();
  }

  Result<> load_table(const std::string& name, const Table& table) {
    std::vector<std::string> names;
    for (const Column& column : table.columns) names.push_back(in_quotes(column.name));
    OFFPRINT_TRY_ASSIGN(auto rows, context_.sample->prepare(fmt::format(
                                       "SELECT {} FROM main.{} LIMIT {}", fmt::join(names, ", "),
                                       in_quotes(table.name), kRowsMax)));
    OFFPRINT_TRY_ASSIGN(Target before, target(context_.old_database, name, table));
    OFFPRINT_TRY_ASSIGN(Target after, target(context_.new_database, name, table));
    std::map<std::string, Refused> refused;
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool row, rows.step());
      if (!row) break;
      if (!put(before, rows)) continue;
      Result<> done = put(after, rows);
      if (done || (done.error().sqlite_code() & 0xff) != SQLITE_CONSTRAINT) continue;
      Refused& entry = refused[rule_of(name, done.error())];
      if (++entry.count == 1) entry.message = done.error().message();
    }
    for (const auto& [rule, entry] : refused) {
      context_.add(rule, name, "",
                   fmt::format("table {} refuses {} rows of the sample: {}", quoted(table.name),
                               entry.count, entry.message));
    }
    return {};
  }

  std::string rule_of(const std::string& name, const Error& error) const {
    switch (error.sqlite_code()) {
      case SQLITE_CONSTRAINT_CHECK:
        return "CHECK_TIGHTENED";
      case SQLITE_CONSTRAINT_NOTNULL: {
        const Table* before = context_.before().table(name);
        const std::string& message = error.message();  // "NOT NULL constraint failed: t.c"
        const std::string column = message.substr(message.rfind('.') + 1);
        const bool is_old = before != nullptr && before->column(column) != nullptr;
        return is_old ? "COLUMN_NOT_NULL_ADDED" : "COLUMN_ADDED_REQUIRED";
      }
      case SQLITE_CONSTRAINT_DATATYPE:
        return "STRICT_ADDED";
      default:
        return "UNIQUE_ADDED";
    }
  }

  static Result<std::map<std::string, int>> orphans(ScratchDatabase& database) {
    std::map<std::string, int> counts;
    auto rows = database.db().prepare("SELECT \"table\" FROM pragma_foreign_key_check");
    if (!rows) return counts;
    for (;;) {
      Result<bool> row = rows->step();
      if (!row || !*row) return counts;  // "foreign key mismatch": a parent without the key
      ++counts[folded(rows->column_text(0))];
    }
  }

  Result<> report_orphans() {
    OFFPRINT_TRY_ASSIGN(auto before, orphans(context_.old_database));
    OFFPRINT_TRY_ASSIGN(const auto after, orphans(context_.new_database));
    for (const auto& [table, count] : after) {
      if (count > before[table])
        context_.add("FK_ADDED", table, "",
                     fmt::format("table {} has {} rows in the sample without their parent",
                                 quoted(table), count));
    }
    return {};
  }

  Context& context_;
  const Schema& sample_;
};

std::string row_text(sqlite::Statement& row) {
  std::string text;
  for (int i = 0; i < row.column_count(); ++i) {
    const int type = row.column_type(i);
    text += fmt::format("{}:", type);
    if (type == SQLITE_BLOB) {
      text += to_hex(row.column_blob(i));
    } else if (type == SQLITE_FLOAT) {
      text += fmt::format("{}", row.column_double(i));
    } else {
      text += row.column_text(i);
    }
    text += '\x1f';
  }
  return text;
}

// The rows in an order of their own; nothing when the query fails, ends too late or is too large.
std::optional<std::vector<std::string>> rows_of(ScratchDatabase& database, const std::string& sql) {
  auto statement = database.prepare(sql, "");
  if (!statement || sqlite3_stmt_readonly(statement->handle()) == 0 ||
      sqlite3_bind_parameter_count(statement->handle()) > 0)
    return std::nullopt;
  std::vector<std::string> rows;
  sqlite3_progress_handler(database.db().handle(), kSteps, [](void*) { return 1; }, nullptr);
  Result<bool> row = statement->step();
  for (; row && *row && rows.size() < kRowsMax; row = statement->step())
    rows.push_back(row_text(*statement));
  sqlite3_progress_handler(database.db().handle(), 0, nullptr, nullptr);
  if (!row || *row) return std::nullopt;
  std::ranges::sort(rows);
  return rows;
}

// "3 rows went, 1 came"; nothing when they are the same or cannot be told.
std::optional<std::string> difference(Context& context, const std::string& sql) {
  const auto before = rows_of(context.old_database, sql);
  const auto after = rows_of(context.new_database, sql);
  if (!before || !after || *before == *after) return std::nullopt;
  std::vector<std::string> gone, came;
  std::ranges::set_difference(*before, *after, std::back_inserter(gone));
  std::ranges::set_difference(*after, *before, std::back_inserter(came));
  return fmt::format("{} rows went, {} came", gone.size(), came.size());
}

void compare_views(Context& context) {
  for (const auto& [name, view] : context.before().tables) {
    const Table* after = context.after().table(name);
    if (view.kind != Table::Kind::kView || after == nullptr || !context.readers.reads(name) ||
        after->columns.size() != view.columns.size())
      continue;
    if (auto change = difference(context, "SELECT * FROM main." + in_quotes(name)))
      context.add("VIEW_ROWSET_SAME", name, "",
                  fmt::format("view {} on the sample: {}", quoted(view.name), *change));
  }
}

void compare_queries(Context& context) {
  for (const Contract& contract : context.contracts) {
    if (!contract.is_binding()) continue;
    for (const ContractQuery& query : contract.queries) {
      if (auto change = difference(context, query.sql))
        context.findings.add("QUERY_ROWSET_SAME", contract.file,
                             {"", "", contract.label(), std::nullopt},
                             fmt::format("{} of contract {} on the sample: {}", query.name,
                                         contract.label(), *change));
    }
  }
}

}  // namespace

Result<> check_data(Context& context) {
  if (context.sample == nullptr) return {};
  OFFPRINT_TRY_ASSIGN(const Schema sample, read_schema(*context.sample));
  OFFPRINT_TRY(Loader(context, sample).load());
  compare_views(context);
  compare_queries(context);
  return {};
}

}  // namespace offprint::publication
