#include "publication/row_links.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/sql_tokens.h"

namespace offprint::publication {

std::string is_key(const std::vector<std::string>& expressions, std::string_view sign) {
  std::vector<std::string> conditions;
  for (const std::string& expression : expressions)
    conditions.push_back(fmt::format("({}) {} @{}", expression, sign, conditions.size() + 1));
  return fmt::format("{}", fmt::join(conditions, " AND "));
}

Result<> check_is_searched(sqlite::Connection& schema, const std::string& sql) {
  std::string scan;
  OFFPRINT_TRY(each_row(schema, "EXPLAIN QUERY PLAN " + sql, [&](const sqlite::Statement& row) {
    const std::string_view detail = row.column_text(3);
    const bool reads_all = (detail.starts_with("SCAN ") && !detail.starts_with("SCAN CONSTANT")) ||
                           detail.contains("AUTOMATIC");
    if (reads_all && scan.empty()) scan = detail;
  }));
  if (scan.empty()) return {};
  return fail(Code::kInvalid, fmt::format("no index leads there ({})", scan));
}

Result<std::vector<RowLink>> LinkPlanner::links(std::size_t without) {
  std::vector<RowLink> links;
  for (std::size_t i = 0; i < shape_.scopes.size(); ++i) {
    const SelectScope& scope = shape_.scopes[i];
    for (std::size_t j = i == 0 ? without : 0; j < scope.sources.size(); ++j) {
      const SelectScope::Source& source = scope.sources[j];
      OFFPRINT_TRY_ASSIGN(SourceTable table, read_source_table(schema_, source.table));
      const auto identity = table.identity(source.alias);
      if (identity.empty())
        return fail(Code::kInvalid, fmt::format("columns of {} hide its rowid", source.table));
      auto conditions = shape_.conditions_of(i);
      conditions.push_back(is_key(identity, "="));
      RowLink link{folded(table.name), table.has_rowid, table.has_rowid ? 0 : identity.size(), {}};
      link.select = fmt::format("SELECT DISTINCT {} FROM {} WHERE {}", fmt::join(keys_, ","),
                                shape_.from_of(i), fmt::join(conditions, " AND "));
      if (auto searched = check_is_searched(schema_, link.select); !searched) {
        return fail(Code::kInvalid, fmt::format("from a row of {} to what depends on it: {}",
                                                source.table, searched.error().message()));
      }
      links.push_back(std::move(link));
    }
  }
  return links;
}

std::string LinkPlanner::routes(const std::vector<std::string>& parameters) {
  if (parameters.empty()) return "";
  for (std::size_t i = 0; i < shape_.scopes.size(); ++i) {
    const SelectScope& scope = shape_.scopes[i];
    std::vector<std::string> columns;
    for (const std::string& parameter : parameters) {
      auto equal =
          std::ranges::find(scope.equalities, parameter, &SelectScope::Equality::parameter);
      if (equal != scope.equalities.end()) columns.push_back(equal->column);
    }
    if (!scope.is_required || columns.size() < parameters.size()) continue;
    auto conditions = shape_.conditions_of(i);
    conditions.push_back(is_key(keys_));
    std::string select = fmt::format("SELECT DISTINCT {} FROM {} WHERE {}", fmt::join(columns, ","),
                                     shape_.from_of(i), fmt::join(conditions, " AND "));
    if (check_is_searched(schema_, select)) return select;
  }
  return "";
}

}  // namespace offprint::publication
