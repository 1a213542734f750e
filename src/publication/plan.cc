#include "publication/plan.h"

#include <algorithm>
#include <functional>
#include <ranges>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/digest.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return result;
}

bool equal(std::string_view a, std::string_view b) { return lower(a) == lower(b); }

std::unexpected<Error> refuse(std::string_view item, std::string_view why) {
  return fail(Code::kInvalid, fmt::format("PUBLICATION_REFUSED: {}: {}", item, why));
}

Result<> each_row(sqlite::Connection& connection, std::string_view sql,
                  const std::function<void(const sqlite::Statement&)>& visit) {
  OFFPRINT_TRY_ASSIGN(auto select, connection.prepare(sql));
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool found, select.step());
    if (!found) return {};
    visit(select);
  }
}

std::string quoted_text(std::string_view text) {
  std::string quoted = "'";
  for (char c : text) {
    quoted += c;
    if (c == '\'') quoted += c;
  }
  return quoted + '\'';
}

struct SourceColumn {
  std::string name, type, collation;
  bool not_null = false;
  int key = 0;  // its place in the primary key, from 1
};

struct SourceTable {
  std::string name;  // as it was created
  PageNo root = 0;
  bool has_rowid = true, is_strict = false;
  bool is_rowid_alias = false;  // the key is an INTEGER PRIMARY KEY
  std::vector<SourceColumn> columns;

  const SourceColumn* find(std::string_view column) const {
    auto found = std::ranges::find_if(
        columns, [&](const SourceColumn& each) { return equal(each.name, column); });
    return found == columns.end() ? nullptr : &*found;
  }
  std::vector<const SourceColumn*> key() const {
    std::vector<const SourceColumn*> key;
    for (const SourceColumn& column : columns) {
      if (column.key > 0) key.push_back(&column);
    }
    std::ranges::sort(key, {}, &SourceColumn::key);
    return key;
  }
};

// What a statement reads and calls, as SQLite's compiler tells it.
struct Uses {
  std::set<std::pair<std::string, std::string>> reads;
  std::set<std::string> functions;

  static int authorize(void* uses, int action, const char* first, const char* second, const char*,
                       const char*) {
    auto* self = static_cast<Uses*>(uses);
    if (action == SQLITE_READ) self->reads.emplace(lower(first), lower(second));
    if (action == SQLITE_FUNCTION) self->functions.insert(lower(second));
    return SQLITE_OK;
  }
};

class Planner {
 public:
  Planner(sqlite::Connection& source, const Definition& definition)
      : source_(source), definition_(definition) {}

  Result<Plan> run() {
    OFFPRINT_TRY(copy_schema());
    plan_.definition = definition_;
    for (const TableItem& item : definition_.tables) OFFPRINT_TRY(plan_table(item));
    for (const ViewItem& item : definition_.views) OFFPRINT_TRY(plan_view(item));
    OFFPRINT_TRY(check_instance());
    plan_.hash = hash();
    return std::move(plan_);
  }

 private:
  // The source's tables without their rows, to try things on.
  Result<> copy_schema();
  Result<SourceTable> read_table(const std::string& name);
  Result<> plan_table(const TableItem& item);
  Result<> plan_view(const ViewItem& item);
  Result<> plan_rows(const TableItem& item, const SourceTable& table, ItemPlan& plan);
  Result<std::vector<PublishedColumn>> columns_of(const TableItem& item, const SourceTable& table);
  Result<std::string> column_definition(const TableItem& item, const SourceTable& table,
                                        const PublishedColumn& column);
  Result<Uses> uses_of(const std::string& item, const std::string& sql);
  Result<> check_text(const std::string& item, std::string_view text);
  Result<> check_row_local(const TableItem& item, const SourceTable& table,
                           const std::vector<PublishedColumn>& columns);
  Result<> check_instance();
  std::vector<std::string> routes_of(const TableItem& item, const SourceTable& table);
  std::string without_parameters(std::string_view text) const;
  std::string hash() const;

  sqlite::Connection& source_;
  const Definition& definition_;
  std::optional<sqlite::Connection> copy_;
  Plan plan_;
};

Result<> Planner::copy_schema() {
  OFFPRINT_TRY_ASSIGN(copy_, sqlite::Connection::open(":memory:", {.create = true}));
  std::vector<std::pair<std::string, std::string>> statements;
  OFFPRINT_TRY(each_row(source_,
                        "SELECT name, sql FROM main.sqlite_schema WHERE sql IS NOT NULL AND name "
                        "NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY type NOT IN ('table'), "
                        "sql NOT LIKE 'CREATE VIRTUAL%', rowid",
                        [&](const sqlite::Statement& row) {
                          statements.emplace_back(row.column_text(0), row.column_text(1));
                        }));
  // Shadow tables came with their virtual tables, and a view may be broken: who uses it is refused.
  for (const auto& [name, sql] : statements) (void)copy_->execute(sql.c_str());
  return {};
}

Result<SourceTable> Planner::read_table(const std::string& name) {
  SourceTable table;
  std::string type;
  OFFPRINT_TRY(each_row(
      *copy_,
      fmt::format("SELECT name, type, wr, strict FROM pragma_table_list WHERE schema='main' AND "
                  "name={} COLLATE NOCASE",
                  quoted_text(name)),
      [&](const sqlite::Statement& row) {
        table.name = row.column_text(0);
        type = row.column_text(1);
        table.has_rowid = row.column_int(2) == 0;
        table.is_strict = row.column_int(3) != 0;
      }));
  if (type.empty()) return refuse("TABLE " + name, "there is no such table");
  if (type != "table")
    return refuse("TABLE " + name, fmt::format("it is a {}: publish a VIEW", type));
  OFFPRINT_TRY(each_row(
      *copy_,
      fmt::format("SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo({})",
                  quoted_text(table.name)),
      [&](const sqlite::Statement& row) {
        table.columns.push_back({std::string(row.column_text(0)), std::string(row.column_text(1)),
                                 "", row.column_int(2) != 0, static_cast<int>(row.column_int(3))});
      }));
  for (SourceColumn& column : table.columns) {
    const char* collation = nullptr;
    if (sqlite3_table_column_metadata(copy_->handle(), "main", table.name.c_str(),
                                      column.name.c_str(), nullptr, &collation, nullptr, nullptr,
                                      nullptr) == SQLITE_OK &&
        collation != nullptr)
      column.collation = collation;
  }
  int indexes_of_key = 0;
  OFFPRINT_TRY(each_row(
      *copy_,
      fmt::format("SELECT count(*) FROM pragma_index_list({}) WHERE origin='pk'",
                  quoted_text(table.name)),
      [&](const sqlite::Statement& row) { indexes_of_key = static_cast<int>(row.column_int(0)); }));
  table.is_rowid_alias = table.has_rowid && table.key().size() == 1 && indexes_of_key == 0;
  OFFPRINT_TRY(each_row(
      source_,
      fmt::format("SELECT rootpage FROM main.sqlite_schema WHERE type='table' "
                  "AND name={}",
                  quoted_text(table.name)),
      [&](const sqlite::Statement& row) { table.root = static_cast<PageNo>(row.column_int(0)); }));
  return table;
}

Result<std::vector<PublishedColumn>> Planner::columns_of(const TableItem& item,
                                                         const SourceTable& table) {
  std::vector<PublishedColumn> columns = item.columns;
  if (item.all_columns) {
    for (const SourceColumn& column : table.columns)
      columns.push_back({quoted_name(column.name), column.name});
  }
  std::set<std::string> names;
  for (const PublishedColumn& column : columns) {
    if (!names.insert(lower(column.name)).second)
      return refuse("TABLE " + item.name, fmt::format("column '{}' is there twice", column.name));
  }
  return columns;
}

// The column of the table that a published column is, unchanged.
const SourceColumn* plain_column(const SourceTable& table, const PublishedColumn& column) {
  auto tokens = tokenize_sql(column.expression);
  if (!tokens || tokens->size() != 1) return nullptr;
  using Kind = SqlToken::Kind;
  const Kind kind = tokens->front().kind;
  if (kind != Kind::kWord && kind != Kind::kQuoted) return nullptr;
  return table.find(tokens->front().name());
}

Result<std::string> Planner::column_definition(const TableItem& item, const SourceTable& table,
                                               const PublishedColumn& column) {
  std::string text = quoted_name(column.name);
  const SourceColumn* plain = plain_column(table, column);
  if (plain == nullptr) return text;
  // ANY keeps what comes only in a STRICT table; elsewhere no type at all does.
  if (!plain->type.empty() && !(table.is_strict && equal(plain->type, "ANY")))
    text += " " + plain->type;
  if (!plain->collation.empty() && !equal(plain->collation, "BINARY")) {
    if (!equal(plain->collation, "NOCASE") && !equal(plain->collation, "RTRIM")) {
      return refuse("TABLE " + item.name,
                    fmt::format("column '{}' has the collation {}, which its readers do not have",
                                column.name, plain->collation));
    }
    text += " COLLATE " + plain->collation;
  }
  if (plain->not_null) text += " NOT NULL";
  return text;
}

Result<Uses> Planner::uses_of(const std::string& item, const std::string& sql) {
  Uses uses;
  sqlite3_set_authorizer(copy_->handle(), &Uses::authorize, &uses);
  auto compiled = copy_->prepare(sql);
  sqlite3_set_authorizer(copy_->handle(), nullptr, nullptr);
  if (!compiled) return refuse(item, compiled.error().message());
  for (int i = 1; i <= sqlite3_bind_parameter_count(compiled->handle()); ++i) {
    const char* name = sqlite3_bind_parameter_name(compiled->handle(), i);
    if (name == nullptr || name[0] == '?') continue;
    const bool known = std::ranges::any_of(
        definition_.parameters, [&](const Parameter& each) { return each.name == name + 1; });
    if (!known || name[0] != ':')
      return refuse(item, fmt::format("{} is no parameter of the publication", name));
  }
  for (const std::string& function : uses.functions) {
    bool is_known = false;
    OFFPRINT_TRY(each_row(
        *copy_,
        fmt::format("SELECT max(flags & 2048 OR type <> 's') FROM pragma_function_list WHERE "
                    "name={}",
                    quoted_text(function)),
        [&](const sqlite::Statement& row) { is_known = row.column_int(0) != 0; }));
    if (!is_known)
      return refuse(item, fmt::format("{}() may answer otherwise each time", function));
  }
  plan_.reads.insert(uses.reads.begin(), uses.reads.end());
  return uses;
}

// What depends on the moment, as far as SQLite does not say it.
Result<> Planner::check_text(const std::string& item, std::string_view text) {
  constexpr std::array<std::string_view, 7> kDates = {
      "DATE", "TIME", "DATETIME", "JULIANDAY", "UNIXEPOCH", "STRFTIME", "TIMEDIFF"};
  OFFPRINT_TRY_ASSIGN(auto tokens, tokenize_sql(text));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const SqlToken& token = tokens[i];
    const bool is_now = token.kind == SqlToken::Kind::kString && equal(token.text, "'now'");
    const bool is_current =
        token.is("CURRENT_TIME") || token.is("CURRENT_DATE") || token.is("CURRENT_TIMESTAMP");
    const bool is_empty_date =
        i + 2 < tokens.size() && tokens[i + 1].is_sign('(') && tokens[i + 2].is_sign(')') &&
        std::ranges::any_of(kDates, [&](std::string_view date) { return token.is(date); });
    if (is_now || is_current || is_empty_date)
      return refuse(item, fmt::format("{} depends on the moment: rows would change while nothing "
                                      "is written",
                                      token.text));
  }
  return {};
}

std::string Planner::without_parameters(std::string_view text) const {
  std::string result(text);
  auto tokens = tokenize_sql(text);
  if (!tokens) return result;
  for (const SqlToken& token : *tokens | std::views::reverse) {
    if (token.kind == SqlToken::Kind::kParameter) result.replace(token.at, token.text.size(), "1");
  }
  return result;
}

// SQLite takes into an index only what depends on the row alone and never changes its answer.
Result<> Planner::check_row_local(const TableItem& item, const SourceTable& table,
                                  const std::vector<PublishedColumn>& columns) {
  std::vector<std::string> names;
  for (const SourceColumn& column : table.columns) names.push_back(quoted_name(column.name));
  OFFPRINT_TRY(copy_->execute(
      fmt::format("DROP TABLE IF EXISTS temp.\"\x01probe\"; CREATE TEMP TABLE \"\x01probe\"({})",
                  fmt::join(names, ","))
          .c_str()));
  auto check = [&](const std::string& expression) -> Result<> {
    const std::string sql = fmt::format(
        "CREATE INDEX temp.\"\x01probed\" ON \"\x01probe\"(({})); INSERT INTO "
        "temp.\"\x01probe\" DEFAULT VALUES; DROP INDEX temp.\"\x01probed\"",
        without_parameters(expression));
    if (auto done = copy_->execute(sql.c_str()); !done)
      return refuse("TABLE " + item.name, done.error().message());
    return {};
  };
  if (!item.filter.empty()) OFFPRINT_TRY(check(item.filter));
  for (const PublishedColumn& column : columns) {
    if (plain_column(table, column) == nullptr) OFFPRINT_TRY(check(column.expression));
  }
  return {};
}

// Of the conditions that are joined by AND those of the form `column = :parameter`.
std::vector<std::string> Planner::routes_of(const TableItem& item, const SourceTable& table) {
  std::vector<std::string> routes;
  auto tokens = tokenize_sql(item.filter);
  if (!tokens) return routes;
  const bool is_split = std::ranges::any_of(*tokens, [](const SqlToken& token) {
    return token.depth == 0 && (token.is("OR") || token.is("BETWEEN") || token.is("CASE"));
  });
  if (is_split) return routes;
  for (const Parameter& parameter : definition_.parameters) {
    std::string route;
    for (std::size_t begin = 0; begin < tokens->size();) {
      std::size_t end = begin;
      while (end < tokens->size() && !((*tokens)[end].is("AND") && (*tokens)[end].depth == 0))
        ++end;
      auto at = [&](std::size_t i) -> const SqlToken& { return (*tokens)[begin + i]; };
      if (end - begin == 3 && at(1).is_sign('=')) {
        for (std::size_t side : {0U, 2U}) {
          const SqlToken& name = at(side);
          const bool is_name =
              name.kind == SqlToken::Kind::kWord || name.kind == SqlToken::Kind::kQuoted;
          if (at(2 - side).text == ":" + parameter.name && is_name && table.find(name.name()))
            route = quoted_name(table.find(name.name())->name);
        }
      }
      begin = end + 1;
    }
    if (route.empty()) return {};
    routes.push_back(std::move(route));
  }
  return routes;
}

Result<> Planner::plan_table(const TableItem& item) {
  const std::string what = "TABLE " + item.name;
  OFFPRINT_TRY_ASSIGN(SourceTable table, read_table(item.source));
  OFFPRINT_TRY_ASSIGN(auto columns, columns_of(item, table));
  const auto key = table.key();
  if (key.empty()) return refuse(what, "it has no PRIMARY KEY that tells its rows apart for good");
  ItemPlan plan;
  plan.name = item.name;
  std::vector<std::string> expressions, definitions;
  for (const PublishedColumn& column : columns) {
    OFFPRINT_TRY(check_text(what, column.expression));
    OFFPRINT_TRY_ASSIGN(std::string definition, column_definition(item, table, column));
    plan.columns.push_back(quoted_name(column.name));
    expressions.push_back(column.expression + " AS " + plan.columns.back());
    definitions.push_back(std::move(definition));
  }
  OFFPRINT_TRY(check_text(what, item.filter));
  std::vector<std::string> key_names;
  for (const SourceColumn* each : key) {
    auto published = std::ranges::find_if(columns, [&](const PublishedColumn& column) {
      return plain_column(table, column) == each;
    });
    if (published == columns.end())
      return refuse(what, fmt::format("'{}' of its primary key is not published", each->name));
    plan.key.push_back(static_cast<std::size_t>(published - columns.begin()));
    key_names.push_back(plan.columns[plan.key.back()]);
  }
  if (table.is_rowid_alias) {
    definitions[plan.key[0]] = key_names[0] + " INTEGER PRIMARY KEY";
  } else {
    definitions.push_back(fmt::format("PRIMARY KEY({})", fmt::join(key_names, ",")));
  }
  plan.create = fmt::format("CREATE TABLE {}({}){}", quoted_name(item.name),
                            fmt::join(definitions, ","), table.has_rowid ? "" : " WITHOUT ROWID");
  plan.select_all =
      fmt::format("SELECT {} FROM main.{}{}", fmt::join(expressions, ","), quoted_name(table.name),
                  item.filter.empty() ? "" : " WHERE (" + item.filter + ")");
  OFFPRINT_TRY_ASSIGN(Uses uses, uses_of(what, plan.select_all));
  for (const auto& [read, column] : uses.reads) plan.reads.insert(read);
  const bool is_alone = plan.reads == std::set{lower(table.name)};
  if (!is_alone && !item.refresh_full)
    return refuse(what, "its condition reads other tables: add REFRESH FULL");
  if (!item.refresh_full) {
    OFFPRINT_TRY(check_row_local(item, table, columns));
    // Records of tables without rowids are read as they are stored.
    OFFPRINT_TRY_ASSIGN(auto encoding, source_.query_text("PRAGMA encoding"));
    if (table.has_rowid || encoding == "UTF-8") OFFPRINT_TRY(plan_rows(item, table, plan));
  }
  plan_.items.push_back(std::move(plan));
  return {};
}

Result<> Planner::plan_rows(const TableItem& item, const SourceTable& table, ItemPlan& plan) {
  plan.source = table.name;
  plan.root = table.root;
  plan.has_rowid = table.has_rowid;
  std::vector<std::string> conditions;
  if (table.has_rowid) {
    std::string rowid;
    for (const char* name : {"rowid", "_rowid_", "oid"}) {
      if (table.find(name) == nullptr) rowid = name;
    }
    if (table.is_rowid_alias) rowid = quoted_name(table.key()[0]->name);
    if (rowid.empty()) return refuse("TABLE " + item.name, "columns hide its rowid");
    conditions.push_back(rowid + " = ?1");
  } else {
    for (const SourceColumn* column : table.key())
      conditions.push_back(
          fmt::format("{} IS ?{}", quoted_name(column->name), conditions.size() + 1));
    plan.key_size = conditions.size();
  }
  const std::string from = fmt::format(" FROM main.{} WHERE {}", quoted_name(table.name),
                                       fmt::join(conditions, " AND "));
  const std::string select = plan.select_all.substr(0, plan.select_all.find(" FROM main."));
  plan.select_row = select + from + (item.filter.empty() ? "" : " AND (" + item.filter + ")");
  plan.routes = routes_of(item, table);
  if (!plan.routes.empty())
    plan.select_routes = fmt::format("SELECT {}{}", fmt::join(plan.routes, ","), from);
  return {};
}

Result<> Planner::plan_view(const ViewItem& item) {
  const std::string what = "VIEW " + item.name;
  if (!item.refresh_full)
    return refuse(what, "it is read as a whole when its tables change: add REFRESH FULL");
  OFFPRINT_TRY(check_text(what, item.select));
  ItemPlan plan;
  plan.name = item.name;
  OFFPRINT_TRY_ASSIGN(Uses uses, uses_of(what, item.select));
  for (const auto& [read, column] : uses.reads) plan.reads.insert(read);
  OFFPRINT_TRY_ASSIGN(auto compiled, copy_->prepare(item.select));
  if (sqlite3_stmt_readonly(compiled.handle()) == 0) return refuse(what, "it is no SELECT");
  if (static_cast<std::size_t>(compiled.column_count()) != item.columns.size()) {
    return refuse(what, fmt::format("it has {} names for {} columns", item.columns.size(),
                                    compiled.column_count()));
  }
  std::vector<std::string> definitions, key_names;
  for (std::size_t i = 0; i < item.columns.size(); ++i) {
    plan.columns.push_back(quoted_name(item.columns[i]));
    const char* type = sqlite3_column_decltype(compiled.handle(), static_cast<int>(i));
    const bool is_any = type != nullptr && equal(type, "ANY");
    definitions.push_back(plan.columns.back() +
                          (type == nullptr || is_any ? "" : fmt::format(" {}", type)));
  }
  for (const std::string& name : item.key) {
    auto found =
        std::ranges::find_if(item.columns, [&](const auto& each) { return equal(each, name); });
    if (found == item.columns.end())
      return refuse(what, fmt::format("'{}' of its KEY is none of its columns", name));
    plan.key.push_back(static_cast<std::size_t>(found - item.columns.begin()));
    key_names.push_back(quoted_name(name));
  }
  definitions.push_back(fmt::format("PRIMARY KEY({})", fmt::join(key_names, ",")));
  plan.create =
      fmt::format("CREATE TABLE {}({})", quoted_name(item.name), fmt::join(definitions, ","));
  plan.select_all = item.select;
  plan_.items.push_back(std::move(plan));
  return {};
}

// The instance's own schema is one that SQLite takes.
Result<> Planner::check_instance() {
  OFFPRINT_TRY_ASSIGN(auto instance, sqlite::Connection::open(":memory:", {.create = true}));
  for (const ItemPlan& item : plan_.items) {
    if (auto made = instance.execute(item.create.c_str()); !made)
      return refuse(item.name, made.error().message());
  }
  int number = 0;
  for (const IndexItem& index : definition_.indexes) {
    plan_.indexes.push_back(fmt::format("CREATE INDEX {} ON {}({})",
                                        quoted_name(fmt::format("{}_{}", index.table, ++number)),
                                        quoted_name(index.table), fmt::join(index.columns, ",")));
    if (auto made = instance.execute(plan_.indexes.back().c_str()); !made)
      return refuse("INDEX " + index.table, made.error().message());
  }
  return {};
}

std::string Planner::hash() const {
  std::string text;
  for (const Parameter& parameter : definition_.parameters)
    text += fmt::format(":{} {}\n", parameter.name, static_cast<int>(parameter.type));
  for (const ItemPlan& item : plan_.items) text += item.create + "\n" + item.select_all + "\n";
  for (const std::string& index : plan_.indexes) text += index + "\n";
  return digest(text).substr(0, 32);
}

}  // namespace

Result<Plan> make_plan(sqlite::Connection& source, const Definition& definition) {
  return Planner(source, definition).run();
}

}  // namespace offprint::publication
