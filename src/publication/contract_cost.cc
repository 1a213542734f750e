// Rules about what a change writes: all pages that change are shipped to every replica.
#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/contract_context.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

std::vector<std::string> constraint_keys(const Table& table) {
  std::vector<std::string> list;
  for (const Index& index : table.indexes) {
    if (index.origin == "u") list.push_back(fmt::format("{}", fmt::join(index.keys, ", ")));
  }
  std::ranges::sort(list);
  return list;
}

bool is_constant(const std::string& default_value) {
  const std::string text = folded(default_value);
  return !text.starts_with("(") && !text.starts_with("current_");
}

// What ALTER TABLE cannot do to a column that stays.
void add_column_reasons(const Column& before, const Column& now, std::vector<std::string>& to) {
  auto add = [&](bool differs, std::string_view what) {
    if (differs) to.push_back(fmt::format("{} of {}", what, quoted(before.name)));
  };
  add(folded(before.declared_type) != folded(now.declared_type), "the type");
  add(before.collation != now.collation, "the collation");
  add(before.default_value != now.default_value, "the default");
  add(before.generated != now.generated ||
          before.generated_expression != now.generated_expression || before.stored != now.stored,
      "the generated expression");
}

// What ALTER TABLE … ADD COLUMN cannot add to a table with rows.
void add_new_column_reasons(const Column& column, std::vector<std::string>& to) {
  if (column.stored) to.push_back(fmt::format("the stored column {}", quoted(column.name)));
  const bool needs_value = column.has_not_null && !column.generated;
  if (needs_value && (column.default_value.empty() || !is_constant(column.default_value)))
    to.push_back(
        fmt::format("the column {} NOT NULL without a constant default", quoted(column.name)));
}

std::vector<std::string> rebuild_reasons(const Table& before, const Table& after) {
  std::vector<std::string> reasons;
  std::vector<std::string> old_order, new_order;
  bool is_behind = true;
  for (const Column& column : before.columns) {
    const Column* now = after.column(column.name);
    if (now == nullptr) continue;
    old_order.push_back(folded(column.name));
    add_column_reasons(column, *now, reasons);
  }
  bool seen_new = false;
  for (const Column& column : after.columns) {
    if (before.column(column.name) == nullptr) {
      add_new_column_reasons(column, reasons);
      seen_new = true;
      continue;
    }
    new_order.push_back(folded(column.name));
    is_behind = is_behind && !seen_new;
  }
  if (old_order != new_order || !is_behind) reasons.emplace_back("the order of columns");
  if (before.key() != after.key()) reasons.emplace_back("the primary key");
  if (before.without_rowid != after.without_rowid) reasons.emplace_back("WITHOUT ROWID");
  if (before.strict != after.strict) reasons.emplace_back("STRICT");
  if (before.autoincrement != after.autoincrement) reasons.emplace_back("AUTOINCREMENT");
  if (constraint_keys(before) != constraint_keys(after)) reasons.emplace_back("UNIQUE");
  for (const ForeignKey& key : after.foreign_keys) {
    const bool is_old = std::ranges::any_of(
        before.foreign_keys, [&](const ForeignKey& item) { return item.text() == key.text(); });
    const bool with_column = std::ranges::all_of(
        key.from, [&](const std::string& name) { return before.column(name) == nullptr; });
    if (!is_old && !with_column) reasons.push_back("the foreign key " + key.text());
  }
  return reasons;
}

// A renamed column stays where it is.
bool is_rename(const Table& before, const Table& after, const Column& gone) {
  const auto place = static_cast<std::size_t>(&gone - before.columns.data());
  return place < after.columns.size() && before.column(after.columns[place].name) == nullptr &&
         after.columns.size() >= before.columns.size();
}

// Pages of a table in the sample; 0: not known.
std::int64_t pages_in_sample(Context& context, const std::string& table) {
  if (context.sample == nullptr) return 0;
  auto count = context.sample->prepare("SELECT count(*) FROM dbstat WHERE name = ?");
  if (!count) return 0;
  count->bind_text(1, table);
  Result<bool> row = count->step();
  return row && *row ? count->column_int(0) : 0;
}

class TableCost {
 public:
  TableCost(Context& context, const std::string& name, const Table& before, const Table& after)
      : context_(context), name_(name), before_(before), after_(after) {}

  void check() {
    // Names of renamed columns are the same columns to ALTER TABLE.
    Table unchanged = before_;
    for (Column& column : unchanged.columns) {
      if (after_.column(column.name) != nullptr) continue;
      const auto place = static_cast<std::size_t>(&column - unchanged.columns.data());
      const Column& original = before_.columns[place];
      if (is_rename(before_, after_, original)) column.name = after_.columns[place].name;
    }
    const bool has_renames = std::ranges::any_of(before_.columns, [&](const Column& column) {
      return after_.column(column.name) == nullptr && is_rename(before_, after_, column);
    });
    std::vector<std::string> reasons;
    if (!has_renames) reasons = rebuild_reasons(unchanged, after_);
    if (!reasons.empty())
      add("TABLE_REBUILD", fmt::format("must be written anew, for {}", fmt::join(reasons, ", ")));
    check_large(!reasons.empty());
  }

 private:
  void add(std::string_view rule, const std::string& what) {
    context_.add(rule, name_, "", fmt::format("table {} {}", quoted(before_.name), what));
  }

  void check_large(bool is_rebuilt) {
    std::vector<std::string> causes;
    if (is_rebuilt) causes.emplace_back("is written anew");
    for (const Column& column : before_.columns) {
      const bool is_stored = !column.generated || column.stored;
      if (after_.column(column.name) == nullptr && is_stored &&
          !is_rename(before_, after_, column) && !is_rebuilt)
        causes.push_back(fmt::format("loses column {} from all its rows", quoted(column.name)));
    }
    const bool drops_column = !is_rebuilt && !causes.empty();
    for (const Index& index : after_.indexes) {
      const bool is_old = std::ranges::any_of(
          before_.indexes, [&](const Index& item) { return item.keys == index.keys; });
      if (!is_old && index.origin == "c")
        causes.push_back(fmt::format("gets index {}", quoted(index.name)));
    }
    if (causes.empty()) return;
    const std::int64_t pages = pages_in_sample(context_, before_.name);
    // Without a sample, only what surely touches every row is worth a word.
    if (context_.sample == nullptr ? !drops_column : pages < context_.large_pages) return;
    std::string size = pages == 0 ? "" : fmt::format(", {} pages in the sample", pages);
    add("LARGE_REWRITE", fmt::format("{}{}", fmt::join(causes, ", "), size));
  }

  Context& context_;
  const std::string& name_;
  const Table& before_;
  const Table& after_;
};

}  // namespace

void check_cost(Context& context) {
  for (const auto& [name, table] : context.before().tables) {
    const Table* after = context.after().table(name);
    if (after == nullptr || table.kind != Table::Kind::kTable || after->kind != Table::Kind::kTable)
      continue;
    TableCost(context, name, table, *after).check();
  }
}

}  // namespace offprint::publication
