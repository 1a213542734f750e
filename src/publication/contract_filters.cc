// Rules about the rows that a contract's versions publish.
#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "publication/contract_context.h"
#include "publication/schema_predicate.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

std::string filter_of(const Contract& contract, const std::string& table) {
  auto found = contract.filters.find(table);
  return found == contract.filters.end() ? "" : found->second;
}

// How many rows of the sample pass one filter and not the other; "" where there is no sample.
std::string sample_text(Context& context, const std::string& table, const std::string& passes,
                        const std::string& other) {
  if (context.sample == nullptr) return "";
  const std::string sql =
      fmt::format("SELECT count(*) FROM \"{}\" WHERE ({}) AND NOT coalesce(({}), 0)", table,
                  passes.empty() ? "1" : passes, other.empty() ? "1" : other);
  Result<std::int64_t> count = context.sample->query_int(sql.c_str());
  return count ? fmt::format(" ({} rows of the sample)", *count) : "";
}

void compare_filters(Context& context, const Contract& before, const Contract& after,
                     const std::string& table) {
  const std::string was = filter_of(before, table), is = filter_of(after, table);
  std::vector<std::string> old_list, new_list;
  if (!was.empty()) old_list.push_back(was);
  if (!is.empty()) new_list.push_back(is);
  auto add = [&](std::string_view rule, const std::string& text, const std::string& what) {
    context.findings.add(rule, after.file, {table, "", after.label(), std::nullopt},
                         fmt::format("{} {} of {} than {}: {}", after.label(), what, quoted(table),
                                     before.label(), text));
  };
  for (const PredicateChange& change : compare_predicates(old_list, new_list)) {
    if (change.looser)
      add("ROW_FILTER_WIDENED", change.text + sample_text(context, table, is, was),
          "publishes more rows");
    if (change.tighter)
      add("ROW_FILTER_NARROWED", change.text + sample_text(context, table, was, is),
          "publishes fewer rows");
  }
}

// A filter must compile, as a query does.
void compile_filter(Context& context, const Contract& contract, const std::string& table,
                    const std::string& filter) {
  const std::string sql = fmt::format("SELECT 1 FROM \"{}\" WHERE {}", table, filter);
  const auto after = context.new_database.prepare(sql, "");
  if (after) return;
  const auto before = context.old_database.prepare(sql, "");
  context.findings.add(
      "QUERY_COMPILES", contract.file, {table, "", contract.label(), std::nullopt},
      fmt::format("the filter of {} in contract {} {}: {}", quoted(table), contract.label(),
                  before ? "does not compile" : "compiles with neither schema",
                  after.error().message()));
}

}  // namespace

void check_filters(Context& context) {
  std::map<std::string, std::map<std::int64_t, const Contract*>> versions;
  for (const Contract& contract : context.contracts) {
    if (!contract.is_binding()) continue;
    for (const auto& [table, filter] : contract.filters)
      compile_filter(context, contract, table, filter);
    versions[contract.name][contract.version] = &contract;
  }
  for (const auto& [name, list] : versions) {
    const Contract* before = nullptr;
    for (const auto& [version, contract] : list) {
      if (before != nullptr) {
        for (const auto& [table, columns] : contract->reads) {
          if (before->reads.contains(table)) compare_filters(context, *before, *contract, table);
        }
      }
      before = contract;
    }
  }
}

}  // namespace offprint::publication
