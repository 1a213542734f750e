// Rules about the file as such: whether what is in it works, and with which SQLite.
#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/contract_context.h"
#include "publication/schema_features.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

std::string in_quotes(std::string_view name) {
  std::string text = "\"";
  for (char c : name) text += c == '"' ? "\"\"" : std::string(1, c);
  return text + '"';
}

Result<> compile_view(ScratchDatabase& database, const Table& view) {
  OFFPRINT_TRY(database.prepare("SELECT * FROM main." + in_quotes(view.name), folded(view.name)));
  return {};
}

void check_views_compile(Context& context) {
  for (const auto& [name, view] : context.after().tables) {
    if (view.kind != Table::Kind::kView) continue;
    const Result<> done = compile_view(context.new_database, view);
    if (done) continue;
    const Table* before = context.before().table(name);
    const bool was_broken = before != nullptr && before->kind == Table::Kind::kView &&
                            !compile_view(context.old_database, *before);
    context.add("VIEW_COMPILES", name, "",
                fmt::format("view {}: {}{}", quoted(view.name), done.error().message(),
                            was_broken ? " (it was broken before)" : ""),
                was_broken ? Severity::kWarning : Severity::kError);
  }
}

// Compiles what fires every trigger of a table: their bodies are compiled with it.
Result<> compile_writes(ScratchDatabase& database, const Table& table, const std::string& used_by) {
  const std::string name = "main." + in_quotes(table.name);
  std::vector<std::string> names, nulls, sets;
  for (const Column& column : table.columns) {
    if (column.generated || column.hidden) continue;
    names.push_back(in_quotes(column.name));
    nulls.emplace_back("NULL");
    sets.push_back(names.back() + " = " + names.back());
  }
  std::vector<std::string> statements;
  if (names.empty()) return {};
  statements.push_back(fmt::format("EXPLAIN INSERT INTO {}({}) VALUES ({})", name,
                                   fmt::join(names, ", "), fmt::join(nulls, ", ")));
  statements.push_back(fmt::format("EXPLAIN UPDATE {} SET {}", name, fmt::join(sets, ", ")));
  statements.push_back(fmt::format("EXPLAIN DELETE FROM {}", name));
  std::optional<Error> failure;
  for (const std::string& statement : statements) {
    Result<sqlite::Statement> done = database.prepare(statement, used_by);
    const bool is_unwritable =
        !done && table.kind == Table::Kind::kView &&
        done.error().message().find("because it is a view") != std::string::npos;
    if (!done && !is_unwritable && !failure) failure = done.error();
  }
  if (failure) return fail(*failure);
  return {};
}

// The trigger alone, without the others that its statements would fire.
Result<> compile_trigger(ScratchDatabase& database, const Trigger& trigger) {
  const Table* table = database.schema().table(trigger.table);
  if (table == nullptr) return {};
  OFFPRINT_TRY(database.db().execute("SAVEPOINT alone"));
  for (const auto& [name, other] : database.schema().triggers) {
    if (&other != &trigger)
      OFFPRINT_TRY(database.db().execute(("DROP TRIGGER main." + in_quotes(other.name)).c_str()));
  }
  const Result<> done = compile_writes(database, *table, folded(trigger.name));
  OFFPRINT_TRY(database.db().execute("ROLLBACK TO alone; RELEASE alone"));
  return done;
}

void check_triggers_compile(Context& context) {
  std::vector<std::string> failing;  // folded tables
  for (const auto& [name, trigger] : context.after().triggers) {
    const Table* table = context.after().table(trigger.table);
    if (table != nullptr && !compile_writes(context.new_database, *table, name))
      failing.push_back(folded(trigger.table));
  }
  for (const auto& [name, trigger] : context.after().triggers) {
    if (std::ranges::find(failing, folded(trigger.table)) == failing.end()) continue;
    const Result<> done = compile_trigger(context.new_database, trigger);
    if (done) continue;
    auto before = context.before().triggers.find(name);
    const bool was_broken = before != context.before().triggers.end() &&
                            !compile_trigger(context.old_database, before->second);
    context.add("TRIGGER_COMPILES", name, "",
                fmt::format("trigger {} on {}: {}{}", quoted(trigger.name), quoted(trigger.table),
                            done.error().message(), was_broken ? " (it was broken before)" : ""),
                was_broken ? Severity::kWarning : Severity::kError);
  }
}

void check_version_of(Context& context, const std::string& name, const std::string& sql) {
  for (const Feature& feature : features_of(sql)) {
    if (feature.version <= context.min_sqlite) continue;
    context.add("FILE_MIN_SQLITE", folded(name), "",
                fmt::format("{}: {} needs SQLite {}, {} has {}", quoted(name), feature.what,
                            version_text(feature.version), context.min_sqlite_who,
                            version_text(context.min_sqlite)));
  }
}

Result<> check_versions(Context& context) {
  if (context.min_sqlite == 0) return {};
  OFFPRINT_TRY_ASSIGN(auto rows,
                      context.new_database.db().prepare(
                          "SELECT name, sql FROM main.sqlite_schema WHERE sql IS NOT NULL"));
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool row, rows.step());
    if (!row) return {};
    check_version_of(context, std::string(rows.column_text(0)), std::string(rows.column_text(1)));
  }
}

void check_extensions(Context& context) {
  std::vector<std::string> told;
  for (const MissingExtension& missing : context.new_database.missing()) {
    if (missing.used_by.empty()) continue;  // a query's own
    const std::string what = fmt::format("{} {}", missing.kind, quoted(missing.name));
    if (std::ranges::find(told, what) != told.end()) continue;
    told.push_back(what);
    context.add("FILE_NEEDS_EXTENSION", missing.used_by, "",
                fmt::format("{} needs the {}, which SQLite has not by itself",
                            quoted(missing.used_by), what));
  }
}

}  // namespace

Result<> check_file(Context& context) {
  check_views_compile(context);
  check_triggers_compile(context);
  OFFPRINT_TRY(check_versions(context));
  check_extensions(context);
  return {};
}

}  // namespace offprint::publication
