// Rules about the columns of tables that both schemas have, and about views.
#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/contract_context.h"
#include "publication/schema_table_text.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

// Names of types that drivers turn into values of their own.
constexpr std::array<std::string_view, 6> kDriverTypes = {"boolean",  "bool",      "date",
                                                          "datetime", "timestamp", "json"};

bool is_driver_type(const std::string& declared) {
  const std::string type = folded(declared);
  return std::ranges::find(kDriverTypes, type) != kDriverTypes.end();
}

std::string shown_type(const Column& column) {
  return column.declared_type.empty() ? "no type" : column.declared_type;
}

std::vector<std::string> names_of(const std::vector<const Column*>& columns) {
  std::vector<std::string> names;
  for (const Column* column : columns) names.push_back(folded(column->name));
  return names;
}

// Not to be NULL also as an alias of such a column.
bool never_null(const Table& table, const Column& column) {
  if (column.not_null) return true;
  const Column* source = column.generated ? table.column(column.generated_expression) : nullptr;
  return source != nullptr && source->not_null;
}

class TableColumns {
 public:
  TableColumns(Context& context, const std::string& name, const Table& before, const Table& after)
      : context_(context), name_(name), before_(before), after_(after) {}

  void check() {
    for (const Column& column : before_.columns) {
      const Column* now = after_.column(column.name);
      if (now == nullptr) {
        check_gone(column);
        continue;
      }
      if (context_.readers.reads(name_, column.name)) check_readers(column, *now);
      if (after_.kind == Table::Kind::kTable) check_writers(column, *now);
    }
    for (const Column& column : after_.columns) {
      if (before_.column(column.name) == nullptr) check_added(column);
    }
    check_order();
  }

 private:
  void add(std::string_view rule, const Column& column, const std::string& what,
           std::optional<Severity> severity = std::nullopt) {
    context_.add(
        rule, name_, folded(column.name),
        fmt::format("table {} column {} {}", quoted(before_.name), quoted(column.name), what),
        severity);
  }

  // A new column in the place of the one that went.
  const Column* renamed(const Column& gone) const {
    const auto place = static_cast<std::size_t>(&gone - before_.columns.data());
    if (place >= after_.columns.size()) return nullptr;
    const Column& there = after_.columns[place];
    const bool is_new = before_.column(there.name) == nullptr;
    const bool same_count = after_.columns.size() >= before_.columns.size();
    return is_new && same_count && folded(there.declared_type) == folded(gone.declared_type)
               ? &there
               : nullptr;
  }

  void check_gone(const Column& column) {
    if (!context_.readers.reads(name_, column.name)) return;
    const std::string clause = context_.readers.clause(name_, column.name);
    if (const Column* other = renamed(column)) {
      add("COLUMN_RENAMED", column,
          fmt::format("{}; it is {} now, and no column has the old name", clause,
                      quoted(other->name)));
      return;
    }
    if (!context_.readers.reads_as_whole_only(name_, column.name)) {
      add("COLUMN_NO_DELETE", column, clause);
    } else if (!context_.readers.is_reserved(name_, column.name)) {
      add("COLUMN_NO_DELETE_UNLESS_RESERVED", column,
          clause + " with its whole table; `reserved` may list its name");
    }
  }

  void check_readers(const Column& before, const Column& now) {
    if (before.name != now.name)
      add("NAME_CASE_SAME", before, fmt::format("is spelled {} now", quoted(now.name)));
    check_type(before, now);
    if (after_.kind != Table::Kind::kTable) return;
    if (before.collation != now.collation)
      add("COLUMN_SAME_COLLATION", before,
          fmt::format("compares as {}, no longer as {}", now.collation, before.collation));
    if (before_.kind == Table::Kind::kTable && never_null(before_, before) &&
        !never_null(after_, now))
      add("COLUMN_NOT_NULL_REMOVED", before,
          fmt::format("may be NULL now and {}", context_.readers.clause(name_, before.name)));
    if (before.generated && now.generated) {
      if (before.generated_expression != now.generated_expression)
        add("GENERATED_EXPR_CHANGED", before,
            fmt::format("is generated as {}, no longer as {}", now.generated_expression,
                        before.generated_expression));
    } else if (before.generated != now.generated) {
      add("GENERATED_EXPR_CHANGED", before,
          now.generated ? fmt::format("is generated now, as {}: it cannot be written",
                                      now.generated_expression)
                        : "is no longer generated: writers must give it",
          Severity::kWarning);
    }
  }

  void check_type(const Column& before, const Column& now) {
    const std::string change =
        fmt::format("is {} now, was {}", shown_type(now), shown_type(before));
    if (before.affinity != now.affinity) {
      const bool widened = before_.strict && after_.strict && folded(now.declared_type) == "any";
      if (widened) {
        add("TYPE_DOMAIN_WIDENED", before, change);
      } else {
        add("COLUMN_SAME_AFFINITY", before,
            fmt::format("{}: affinity {}, not {}", change, affinity_name(now.affinity),
                        affinity_name(before.affinity)));
      }
    } else if (folded(before.declared_type) != folded(now.declared_type)) {
      if (before_.kind == Table::Kind::kView || after_.kind == Table::Kind::kView) return;
      const bool is_known =
          is_driver_type(before.declared_type) || is_driver_type(now.declared_type);
      add("COLUMN_SAME_DECLTYPE", before, change, is_known ? Severity::kError : Severity::kWarning);
    }
  }

  void check_writers(const Column& before, const Column& now) {
    if (before_.kind != Table::Kind::kTable) return;
    if (now.not_null && !before.not_null && !now.generated)
      add("COLUMN_NOT_NULL_ADDED", before, "must not be NULL now");
    if (before.default_value != now.default_value && !now.generated)
      add("DEFAULT_CHANGED", before,
          fmt::format("is {} where it is left out, was {}",
                      now.default_value.empty() ? "NULL" : now.default_value,
                      before.default_value.empty() ? "NULL" : before.default_value));
  }

  bool is_renamed(const Column& added) const {
    return std::ranges::any_of(before_.columns, [&](const Column& column) {
      return after_.column(column.name) == nullptr && renamed(column) == &added;
    });
  }

  void check_added(const Column& column) {
    if (context_.readers.is_reserved(name_, column.name))
      add("COLUMN_NAME_REUSED", column, "is new, and its name is reserved");
    if (is_renamed(column)) return;
    if (column.has_not_null && column.default_value.empty() && !column.generated)
      add("COLUMN_ADDED_REQUIRED", column, "is new and NOT NULL without a default");
    if (!context_.readers.reads(name_) || column.hidden) return;
    const bool shows = context_.changed_by_position.contains(name_);
    add("COLUMN_ADDED", column,
        shows ? "is new, and a registered query shows it" : "is new: SELECT * has it too",
        shows ? Severity::kError : Severity::kWarning);
  }

  void check_order() {
    if (!context_.readers.reads(name_)) return;
    std::vector<std::string> old_order = names_of(before_.visible());
    std::vector<std::string> new_order = names_of(after_.visible());
    std::erase_if(old_order, [&](const auto& item) { return after_.column(item) == nullptr; });
    std::erase_if(new_order, [&](const auto& item) { return before_.column(item) == nullptr; });
    if (old_order == new_order) return;
    const bool shows = context_.changed_by_position.contains(name_);
    context_.add("COLUMN_ORDER_SAME", name_, "",
                 fmt::format("table {} has its columns in the order {}", quoted(before_.name),
                             fmt::join(new_order, ", ")),
                 shows ? Severity::kError : Severity::kWarning);
  }

  Context& context_;
  const std::string& name_;
  const Table& before_;
  const Table& after_;
};

// One column under another name: what RENAME COLUMN does to a view that does not name its own.
const Column* renamed_result(const Table& before, const Table& after, const Column& gone) {
  const auto place = static_cast<std::size_t>(&gone - before.columns.data());
  if (before.columns.size() != after.columns.size()) return nullptr;
  const Column& there = after.columns[place];
  return before.column(there.name) == nullptr ? &there : nullptr;
}

void check_view_result(Context& context, const std::string& name, const Table& before,
                       const Table& after) {
  if (before.columns.empty() || after.columns.empty()) return;  // one of them does not compile
  bool is_told = false;
  for (const Column& column : before.columns) {
    if (after.column(column.name) != nullptr || !context.readers.reads(name, column.name)) continue;
    is_told = true;
    const std::string clause = context.readers.clause(name, column.name);
    const Column* other = renamed_result(before, after, column);
    const std::string rest =
        other == nullptr ? "and is gone" : fmt::format("and is {} now", quoted(other->name));
    context.add(other == nullptr ? "VIEW_RESULT_COLUMNS" : "COLUMN_RENAMED", name,
                folded(column.name),
                fmt::format("view {} column {} {}, {}", quoted(before.name), quoted(column.name),
                            clause, rest));
  }
  std::vector<std::string> old_names, new_names;
  for (const Column& column : before.columns) old_names.push_back(column.name);
  for (const Column& column : after.columns) new_names.push_back(column.name);
  if (is_told || old_names == new_names) return;
  context.add("VIEW_RESULT_COLUMNS", name, "",
              fmt::format("view {} has the columns {}; it had {}", quoted(before.name),
                          fmt::join(new_names, ", "), fmt::join(old_names, ", ")),
              context.readers.reads(name, "*") ? Severity::kError : Severity::kWarning);
}

}  // namespace

void check_columns(Context& context) {
  for (const auto& [name, table] : context.before().tables) {
    const Table* after = context.after().table(name);
    if (after == nullptr || table.kind == Table::Kind::kView) continue;
    TableColumns(context, name, table, *after).check();
  }
}

void check_views(Context& context) {
  for (const auto& [name, after] : context.after().tables) {
    const Table* before = context.before().table(name);
    if (before != nullptr && before->kind == Table::Kind::kView && context.readers.reads(name)) {
      check_view_result(context, name, *before, after);
      for (const Column& column : before->columns) {
        const Column* now = after.column(column.name);
        if (now == nullptr || now->affinity == column.affinity ||
            !context.readers.reads(name, column.name))
          continue;
        context.add("VIEW_RESULT_AFFINITY", name, folded(column.name),
                    fmt::format("view {} column {} has affinity {}, had {}", quoted(before->name),
                                quoted(column.name), affinity_name(now->affinity),
                                affinity_name(column.affinity)));
      }
    }
    if (after.kind != Table::Kind::kView || (before != nullptr && before->sql == after.sql))
      continue;
    if (read_view_text(after.sql).has_star)
      context.add("VIEW_STAR", name, "",
                  fmt::format("view {} says *: name its columns, or a new column of its tables "
                              "becomes one of it",
                              quoted(after.name)));
  }
}

}  // namespace offprint::publication
