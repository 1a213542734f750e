// Rules about what came, went or became something else.
#include <algorithm>

#include <fmt/format.h>

#include "publication/contract_context.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

std::vector<std::pair<std::string, Affinity>> shape_of(const Table& table) {
  std::vector<std::pair<std::string, Affinity>> shape;
  for (const Column& column : table.columns)
    shape.emplace_back(folded(column.name), column.affinity);
  return shape;
}

// A table that is new and looks like the one that went.
const Table* renamed(const Context& context, const Table& gone) {
  for (const auto& [name, table] : context.after().tables) {
    if (context.before().table(name) != nullptr || table.kind != gone.kind) continue;
    if (shape_of(table) == shape_of(gone)) return &table;
  }
  return nullptr;
}

void check_gone(Context& context, const std::string& name, const Table& table) {
  if (!context.readers.reads(name)) return;
  const bool is_view = table.kind == Table::Kind::kView;
  const std::string clause = context.readers.clause(name);
  if (const Table* other = is_view ? nullptr : renamed(context, table)) {
    context.add("TABLE_RENAMED", name, "",
                fmt::format("table {} {}; it is {} now, and no view has the old name",
                            quoted(table.name), clause, quoted(other->name)));
    return;
  }
  context.add(is_view ? "VIEW_NO_DELETE" : "TABLE_NO_DELETE", name, "",
              fmt::format("{} {} {}", is_view ? "view" : "table", quoted(table.name), clause));
}

void check_kind(Context& context, const std::string& name, const Table& before,
                const Table& after) {
  const bool was_view = before.kind == Table::Kind::kView;
  const bool is_view = after.kind == Table::Kind::kView;
  if (!was_view && is_view)
    context.add("TABLE_TO_VIEW", name, "",
                fmt::format("table {} is a view now: no upserts, no rowid, no defaults, no keys "
                            "refer to it",
                            quoted(before.name)));
  if (was_view && !is_view)
    context.add("VIEW_TO_TABLE", name, "",
                fmt::format("view {} is a table now: writes that its triggers turned into others "
                            "are stored as they are",
                            quoted(before.name)));
}

// What contracts read must be in one of the schemas: a typing error would check nothing.
void check_contracts(Context& context) {
  for (const Contract& contract : context.contracts) {
    if (!contract.is_binding()) continue;
    for (const auto& [name, columns] : contract.reads) {
      const Table* before = context.before().table(name);
      const Table* after = context.after().table(name);
      std::vector<std::string> unknown;
      if (before == nullptr && after == nullptr) unknown.push_back(name);
      for (const std::string& column : columns.value_or(std::set<std::string>())) {
        const bool known = (before != nullptr && before->column(column) != nullptr) ||
                           (after != nullptr && after->column(column) != nullptr);
        if (unknown.empty() && !known) unknown.push_back(name + "." + column);
      }
      for (const std::string& item : unknown) {
        context.findings.add("CONTRACT_UNKNOWN_NAME", contract.file,
                             {item, "", contract.label(), std::nullopt},
                             fmt::format("contract {} reads {}, which neither schema has",
                                         contract.label(), quoted(item)));
      }
    }
  }
}

}  // namespace

void check_tables(Context& context) {
  for (const auto& [name, table] : context.before().tables) {
    const Table* after = context.after().table(name);
    if (after == nullptr) {
      check_gone(context, name, table);
      continue;
    }
    if (!context.readers.reads(name)) continue;
    check_kind(context, name, table, *after);
    if (after->name != table.name)
      context.add("NAME_CASE_SAME", name, "",
                  fmt::format("{} is spelled {} now", quoted(table.name), quoted(after->name)));
  }
  check_contracts(context);
}

}  // namespace offprint::publication
