#include "publication/plan.h"

#include <algorithm>
#include <map>
#include <ranges>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/digest.h"
#include "publication/full_join.h"
#include "publication/source_state.h"
#include "publication/source_table.h"
#include "publication/sql_tokens.h"
#include "sqlite/moment_watch.h"

namespace offprint::publication {
namespace {

constexpr int kStepsMax = 100'000;  // of SQLite's machine, of a trial: about a millisecond

bool equal(std::string_view a, std::string_view b) { return folded(a) == folded(b); }

std::unexpected<Error> refuse(std::string_view item, std::string_view why) {
  return fail(Code::kInvalid, fmt::format("PUBLICATION_REFUSED: {}: {}", item, why));
}

// What a statement reads and calls, as SQLite's compiler tells it.
struct Uses {
  std::set<std::pair<std::string, std::string>> reads;
  std::set<std::string> functions;

  static int authorize(void* uses, int action, const char* first, const char* second, const char*,
                       const char*) {
    auto* self = static_cast<Uses*>(uses);
    if (action == SQLITE_READ) self->reads.emplace(folded(first), folded(second));
    if (action == SQLITE_FUNCTION) self->functions.insert(folded(second));
    return SQLITE_OK;
  }
};

class Planner {
 public:
  Planner(sqlite::Connection& source, const Definition& definition, Unkeyed unkeyed)
      : source_(source), definition_(definition), unkeyed_(unkeyed) {}

  Result<Plan> run() {
    OFFPRINT_TRY_ASSIGN(copy_, copy_of_schema(source_));
    plan_.definition = definition_;
    for (const TableItem& item : definition_.tables) OFFPRINT_TRY(plan_table(item));
    for (const ViewItem& item : definition_.views) OFFPRINT_TRY(plan_view(item));
    OFFPRINT_TRY(check_instance());
    plan_.hash = hash();
    return std::move(plan_);
  }

 private:
  Result<> plan_table(const TableItem& item);
  Result<> plan_view(const ViewItem& item);
  Result<> plan_rows(const SourceTable& table, ItemPlan& plan);
  Result<> plan_view_rows(const ViewItem& item, ItemPlan& plan);
  Result<> unless_whole(const std::string& what, Result<> planned, ItemPlan& plan);
  Result<> plan_full_rows(const FullJoin& join, ItemPlan& plan);
  Result<> check_links(const SelectShape& shape, const ItemPlan& plan);
  Result<> check_links(const std::set<std::string>& known, const ItemPlan& plan);
  HasColumn has_column();
  std::vector<std::string> parameter_names() const;
  Result<std::vector<PublishedColumn>> columns_of(const TableItem& item, const SourceTable& table);
  Result<std::string> column_definition(const TableItem& item, const SourceTable& table,
                                        const PublishedColumn& column);
  Result<Uses> uses_of(const std::string& item, const std::string& sql);
  Result<> check_text(const std::string& item, std::string_view text);
  Result<> check_moment(const std::string& item, const std::string& sql);
  Result<> check_row_local(const TableItem& item, const SourceTable& table,
                           const std::vector<PublishedColumn>& columns);
  Result<> check_instance();
  std::string without_parameters(std::string_view text) const;
  std::string hash() const;

  sqlite::Connection& source_;
  const Definition& definition_;
  const Unkeyed unkeyed_;
  std::optional<sqlite::Connection> copy_;     // to try things on
  std::map<std::string, SourceTable> tables_;  // in lower case
  Plan plan_;
};

Result<std::vector<PublishedColumn>> Planner::columns_of(const TableItem& item,
                                                         const SourceTable& table) {
  std::vector<PublishedColumn> columns = item.columns;
  if (item.all_columns) {
    for (const SourceColumn& column : table.columns)
      columns.push_back({quoted_name(column.name), column.name});
  }
  std::set<std::string> names;
  for (const PublishedColumn& column : columns) {
    if (!names.insert(folded(column.name)).second)
      return refuse("TABLE " + item.name, fmt::format("column '{}' is there twice", column.name));
  }
  return columns;
}

// The column of the table that a published column is, unchanged.
const SourceColumn* plain_column(const SourceTable& table, const PublishedColumn& column) {
  auto tokens = tokenize_whole(column.expression);
  if (!tokens || tokens->size() != 1) return nullptr;
  using Kind = Token::Kind;
  const Kind kind = tokens->front().kind;
  if (kind != Kind::kWord && kind != Kind::kQuotedName) return nullptr;
  return table.find(tokens->front().name());
}

// A key that is INTEGER alone would be a rowid, which takes nothing else. INT has its affinity.
std::string type_of_key(const std::string& type, bool is_key) {
  return is_key && equal(type, "INTEGER") ? "INT" : type;
}

Result<std::string> Planner::column_definition(const TableItem& item, const SourceTable& table,
                                               const PublishedColumn& column) {
  std::string text = quoted_name(column.name);
  const SourceColumn* plain = plain_column(table, column);
  if (plain == nullptr) return text;
  // ANY keeps what comes only in a STRICT table; elsewhere no type at all does.
  if (!plain->type.empty() && !(table.is_strict && equal(plain->type, "ANY")))
    text += " " + type_of_key(plain->type, plain->key > 0 && !table.is_rowid_alias);
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
    const std::string_view text = name != nullptr ? name : "?";
    const bool known = std::ranges::any_of(
        definition_.parameters, [&](const Parameter& each) { return text == ":" + each.name; });
    if (!known) return refuse(item, fmt::format("{} is no parameter of the publication", text));
  }
  for (const auto& [table, column] : uses.reads) {
    if (table.starts_with("sqlite_")) return refuse(item, fmt::format("{} is SQLite's own", table));
    // Tables that no schema has tell of the server, such as where its files are.
    if (!table.starts_with("pragma_") && table != "dbstat") continue;
    bool is_there = false;
    OFFPRINT_TRY(each_row(*copy_,
                          "SELECT 1 FROM sqlite_schema WHERE lower(name)=" + quoted_text(table),
                          [&](const auto&) { is_there = true; }));
    if (!is_there) return refuse(item, fmt::format("{} is no table of the database", table));
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
  return uses;
}

// The tokens of each argument of a function whose parenthesis opens there.
std::vector<std::pair<std::size_t, std::size_t>> argument_ranges(const Tokens& tokens,
                                                                 std::size_t open) {
  std::vector<std::pair<std::size_t, std::size_t>> ranges;
  const std::size_t end = behind_parenthesis(tokens, open);
  std::size_t begin = open + 1;
  for (std::size_t i = begin; i < end; ++i) {
    const bool is_comma = tokens[i].is_operator(",") && tokens[i].depth == tokens[open].depth + 1;
    if (!is_comma && i + 1 < end) continue;
    ranges.emplace_back(begin, i);
    begin = i + 1;
  }
  return ranges;
}

// A time of a date function that is put together to be the moment's: 'no' || 'w'. Each part of it
// that needs no row is computed by SQLite.
bool computes_now(sqlite::Connection& copy, std::string_view text, const Tokens& tokens,
                  std::pair<std::size_t, std::size_t> time) {
  constexpr std::size_t kPartMax = 32;  // tokens
  constexpr std::array<std::string_view, 3> kMoments = {"now", "subsec", "subsecond"};
  for (std::size_t begin = time.first; begin < time.second; ++begin) {
    for (std::size_t end = begin + 1; end <= std::min(time.second, begin + kPartMax); ++end) {
      const Token& last = tokens[end - 1];
      const std::size_t from = tokens[begin].offset;
      auto part = copy.prepare(
          fmt::format("SELECT ({})", text.substr(from, last.offset + last.text.size() - from)));
      if (!part || sqlite3_stmt_readonly(part->handle()) == 0) continue;
      sqlite3_progress_handler(copy.handle(), kStepsMax, [](void*) { return 1; }, nullptr);
      auto row = part->step();
      sqlite3_progress_handler(copy.handle(), 0, nullptr, nullptr);
      if (!row || !*row) continue;
      const std::string value = folded(part->column_text(0));
      if (std::ranges::find(kMoments, value) != kMoments.end()) return true;
    }
  }
  return false;
}

// A modifier of a date function: the machine's zone is asked.
bool asks_zone(const Tokens& tokens, std::pair<std::size_t, std::size_t> argument) {
  return std::any_of(tokens.begin() + static_cast<std::ptrdiff_t>(argument.first),
                     tokens.begin() + static_cast<std::ptrdiff_t>(argument.second),
                     [](const Token& token) {
                       return token.kind == Token::Kind::kString &&
                              (equal(token.text, "'localtime'") || equal(token.text, "'utc'"));
                     });
}

// What depends on the moment, as far as SQLite does not say it.
Result<> Planner::check_text(const std::string& item, std::string_view text) {
  constexpr std::array<std::string_view, 7> kDates = {
      "DATE", "TIME", "DATETIME", "JULIANDAY", "UNIXEPOCH", "STRFTIME", "TIMEDIFF"};
  OFFPRINT_TRY_ASSIGN(auto tokens, tokenize_whole(text));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const Token& token = tokens[i];
    const bool is_now = token.kind == Token::Kind::kString && equal(token.text, "'now'");
    const bool is_current = token.is_word("CURRENT_TIME") || token.is_word("CURRENT_DATE") ||
                            token.is_word("CURRENT_TIMESTAMP");
    const bool is_date = i + 1 < tokens.size() && tokens[i + 1].is_operator("(") &&
                         token.is_name() && std::ranges::any_of(kDates, [&](std::string_view date) {
                           return equal(token.name(), date);
                         });
    // Without a time they take the moment's: strftime() with a format alone, the others empty.
    const std::size_t time_at = is_date && equal(token.name(), "strftime") ? 1 : 0;
    const auto arguments = is_date ? argument_ranges(tokens, i + 1)
                                   : std::vector<std::pair<std::size_t, std::size_t>>();
    const bool is_without_time =
        is_date && (arguments.size() <= time_at || arguments[0].first == arguments[0].second);
    bool is_computed = false;
    for (std::size_t each = time_at; each < arguments.size() && !is_computed; ++each) {
      const bool is_time = each == time_at || equal(token.name(), "timediff");
      is_computed = is_time && computes_now(*copy_, text, tokens, arguments[each]);
      if (each > time_at && asks_zone(tokens, arguments[each])) return refuse(item, kDependsOnZone);
    }
    plan_.reads_dates = plan_.reads_dates || is_date;
    if (is_now || is_current || is_without_time || is_computed)
      return refuse(item, fmt::format("{} {}", token.text, kDependsOnMoment));
  }
  return {};
}

// However it is written: what depends on no row is computed before the first.
Result<> Planner::check_moment(const std::string& item, const std::string& sql) {
  OFFPRINT_TRY_ASSIGN(auto select, copy_->prepare(sql));
  sqlite3_progress_handler(copy_->handle(), kStepsMax, [](void*) { return 1; }, nullptr);
  const sqlite::MomentWatch watch;
  (void)select.step();
  sqlite3_progress_handler(copy_->handle(), 0, nullptr, nullptr);
  if (watch.was_asked_zone()) return refuse(item, kDependsOnZone);
  return watch.was_asked() ? refuse(item, kDependsOnMoment) : Result<>();
}

std::string Planner::without_parameters(std::string_view text) const {
  std::string result(text);
  auto tokens = tokenize_whole(text);
  if (!tokens) return result;
  for (const Token& token : *tokens | std::views::reverse) {
    if (token.kind == Token::Kind::kParameter) result.replace(token.offset, token.text.size(), "1");
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
  // What reads other tables is told from their rows.
  OFFPRINT_TRY_ASSIGN(Tokens tokens, tokenize_whole(item.filter));
  const bool has_select =
      std::ranges::any_of(tokens, [](const Token& token) { return token.is_word("SELECT"); });
  if (!item.filter.empty() && !has_select) OFFPRINT_TRY(check(item.filter));
  for (const PublishedColumn& column : columns) {
    if (plain_column(table, column) == nullptr) OFFPRINT_TRY(check(column.expression));
  }
  return {};
}

Result<> Planner::plan_table(const TableItem& item) {
  const std::string what = "TABLE " + item.name;
  auto found = read_source_table(*copy_, item.source);
  if (!found) return refuse(what, found.error().message());
  const SourceTable table = *std::move(found);
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
  OFFPRINT_TRY(check_moment(what, plan.select_all));
  if (!item.refresh_full) {
    OFFPRINT_TRY(check_row_local(item, table, columns));
    auto planned = plan_rows(table, plan);
    OFFPRINT_TRY(unless_whole(what, std::move(planned), plan));
  }
  plan_.items.push_back(std::move(plan));
  return {};
}

// What cannot be kept row by row is refused, or read as a whole.
Result<> Planner::unless_whole(const std::string& what, Result<> planned, ItemPlan& plan) {
  if (planned) return {};
  plan.links.clear();
  plan.select_row.clear();
  if (unkeyed_ == Unkeyed::kReadWhole) {
    plan_.read_whole.push_back(fmt::format("{}: {}", what, planned.error().message()));
    return {};
  }
  return refuse(what,
                fmt::format("it cannot be kept row by row: {}. Mend that, or add REFRESH FULL",
                            planned.error().message()));
}

HasColumn Planner::has_column() {
  return [this](const std::string& name, const std::string& column) {
    auto [place, is_new] = tables_.try_emplace(folded(name));
    if (is_new) {
      if (auto table = read_source_table(*copy_, name)) place->second = *std::move(table);
    }
    const std::string plain = folded(column);
    const bool is_rowid = plain == "rowid" || plain == "_rowid_" || plain == "oid";
    return place->second.find(plain) != nullptr || (is_rowid && place->second.has_rowid);
  };
}

// Of tables that are all that it reads, whose records can be told apart.
Result<> Planner::check_links(const SelectShape& shape, const ItemPlan& plan) {
  std::set<std::string> known;
  for (const SelectScope& scope : shape.scopes) {
    for (const SelectScope::Source& source : scope.sources) known.insert(folded(source.table));
  }
  return check_links(known, plan);
}

Result<> Planner::check_links(const std::set<std::string>& known, const ItemPlan& plan) {
  for (const std::string& table : plan.reads) {
    if (!known.contains(table))
      return fail(Code::kInvalid, fmt::format("it reads {} through something else", table));
  }
  // Records of tables without rowids are read as they are stored.
  OFFPRINT_TRY_ASSIGN(auto encoding, source_.query_text("PRAGMA encoding"));
  const bool has_records =
      std::ranges::any_of(plan.links, [](const RowLink& link) { return !link.has_rowid; });
  if (has_records && encoding != "UTF-8")
    return fail(Code::kInvalid, "a table WITHOUT ROWID in " + encoding);
  return {};
}

std::vector<std::string> Planner::parameter_names() const {
  std::vector<std::string> names;
  for (const Parameter& parameter : definition_.parameters) names.push_back(parameter.name);
  return names;
}

Result<> Planner::plan_rows(const SourceTable& table, ItemPlan& plan) {
  OFFPRINT_TRY_ASSIGN(SelectShape shape, parse_select(plan.select_all, has_column()));
  const auto identity = table.identity(quoted_name(table.name));
  if (identity.empty()) return fail(Code::kInvalid, "columns hide its rowid");
  plan.select_row = shape.restricted_to(is_key(identity));
  OFFPRINT_TRY(check_is_searched(*copy_, plan.select_row));
  std::vector<std::string> key;
  for (const SourceColumn* column : table.key())
    key.push_back(quoted_name(table.name) + "." + quoted_name(column->name));
  plan.select_key = shape.restricted_to(is_key(key));
  LinkPlanner planner(*copy_, shape, identity);
  OFFPRINT_TRY_ASSIGN(plan.links, planner.links(1));
  plan.links.insert(plan.links.begin(), {folded(table.name), table.has_rowid,
                                         table.has_rowid ? 0 : identity.size(), ""});
  plan.select_routes = planner.routes(parameter_names());
  return check_links(shape, plan);
}

// The key of the join is the KEY.
Result<> Planner::plan_full_rows(const FullJoin& join, ItemPlan& plan) {
  std::set<std::string> known;
  for (const FullJoin::Table& table : join.tables) known.insert(folded(table.name));
  const bool is_key = plan.key.size() == 1 && plan.key[0] < join.results.size() &&
                      (folded(join.results[plan.key[0]]) == folded(join.key) ||
                       folded(join.results[plan.key[0]]) == folded(quoted_name(join.key)));
  if (!is_key || join.results.size() != plan.columns.size())
    return fail(Code::kInvalid, "its KEY is not the column of USING, by its name alone");
  OFFPRINT_TRY(plan_full_join(*copy_, join, plan));
  return check_links(known, plan);
}

Result<> Planner::plan_view_rows(const ViewItem& item, ItemPlan& plan) {
  OFFPRINT_TRY_ASSIGN(auto full, parse_full_join(item.select));
  if (full) return plan_full_rows(*full, plan);
  OFFPRINT_TRY_ASSIGN(SelectShape shape, parse_select(item.select, has_column()));
  if (shape.results.size() != item.columns.size())
    return fail(Code::kInvalid, "its columns cannot be told apart");
  std::vector<std::string> keys;
  for (std::size_t each : plan.key) {
    keys.push_back(shape.results[each]);
    OFFPRINT_TRY_ASSIGN(Tokens tokens, tokenize_whole(keys.back()));
    const bool is_known = std::ranges::none_of(tokens, [](const Token& token) {
      return token.is_word("SELECT") || token.kind == Token::Kind::kParameter;
    });
    if (!is_known) return fail(Code::kInvalid, "a SELECT or a parameter in its KEY");
  }
  const std::set<std::string> distinct(keys.begin(), keys.end());
  if (shape.is_grouped && distinct != std::set(shape.groups.begin(), shape.groups.end()))
    return fail(Code::kInvalid, "its KEY is not what it groups by");
  // Of nothing there is no row, unless all of it is one group.
  bool is_one_group = false;
  OFFPRINT_TRY(each_row(*copy_, item.select, [&](const auto&) { is_one_group = true; }));
  if (is_one_group) return fail(Code::kInvalid, "it is one group: name its KEY in GROUP BY");
  const SelectScope& outermost = shape.scopes[0];
  if (outermost.has_outer_join) {
    const std::string alone =
        fmt::format("SELECT {} FROM main.{} AS {}", fmt::join(keys, ","),
                    quoted_name(outermost.sources[0].table), outermost.sources[0].alias);
    if (!copy_->prepare(alone))
      return fail(Code::kInvalid, "with LEFT JOIN its KEY must be of the first table");
  }
  plan.select_row = plan.select_key = shape.restricted_to(is_key(keys));
  if (auto searched = check_is_searched(*copy_, plan.select_row); !searched)
    return fail(Code::kInvalid, "to its rows by KEY: " + searched.error().message());
  LinkPlanner planner(*copy_, shape, keys);
  OFFPRINT_TRY_ASSIGN(plan.links, planner.links(0));
  plan.select_routes = planner.routes(parameter_names());
  return check_links(shape, plan);
}

Result<> Planner::plan_view(const ViewItem& item) {
  const std::string what = "VIEW " + item.name;
  OFFPRINT_TRY(check_text(what, item.select));
  ItemPlan plan;
  plan.name = item.name;
  OFFPRINT_TRY_ASSIGN(Uses uses, uses_of(what, item.select));
  for (const auto& [read, column] : uses.reads) plan.reads.insert(read);
  OFFPRINT_TRY_ASSIGN(auto compiled, copy_->prepare(item.select));
  if (sqlite3_stmt_readonly(compiled.handle()) == 0) return refuse(what, "it is no SELECT");
  OFFPRINT_TRY(check_moment(what, item.select));
  if (static_cast<std::size_t>(compiled.column_count()) != item.columns.size()) {
    return refuse(what, fmt::format("it has {} names for {} columns", item.columns.size(),
                                    compiled.column_count()));
  }
  // Of several SELECTs SQLite tells the types of the first.
  OFFPRINT_TRY_ASSIGN(Tokens tokens, tokenize_whole(item.select));
  const bool is_compound = std::ranges::any_of(tokens, [](const Token& token) {
    return token.is_word("UNION") || token.is_word("INTERSECT") || token.is_word("EXCEPT");
  });
  std::vector<std::string> definitions, key_names;
  for (std::size_t i = 0; i < item.columns.size(); ++i) {
    plan.columns.push_back(quoted_name(item.columns[i]));
    const char* type = sqlite3_column_decltype(compiled.handle(), static_cast<int>(i));
    const bool is_plain = type != nullptr && !equal(type, "ANY") && !is_compound;
    const bool is_key = std::ranges::any_of(
        item.key, [&](const std::string& name) { return equal(name, item.columns[i]); });
    definitions.push_back(plan.columns.back() + (is_plain ? " " + type_of_key(type, is_key) : ""));
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
  if (!item.refresh_full) {
    auto planned = plan_view_rows(item, plan);
    OFFPRINT_TRY(unless_whole(what, std::move(planned), plan));
  }
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

Result<Plan> make_plan(sqlite::Connection& source, const Definition& definition, Unkeyed unkeyed) {
  return Planner(source, definition, unkeyed).run();
}

}  // namespace offprint::publication
