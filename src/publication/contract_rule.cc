#include "publication/contract_rule.h"

#include <algorithm>
#include <array>

namespace offprint::publication {
namespace {

using enum Category;
constexpr Severity kError = Severity::kError;
constexpr Severity kWarning = Severity::kWarning;

constexpr auto kRules = std::to_array<Rule>({
    {"TABLE_NO_DELETE", kQuery, kError, "a table that is read is gone"},
    {"VIEW_NO_DELETE", kQuery, kError, "a view that is read is gone"},
    {"TABLE_RENAMED", kQuery, kError, "a table has another name, and no view has the old one"},
    {"COLUMN_RENAMED", kQuery, kError, "a column has another name, and none has the old one"},
    {"COLUMN_NO_DELETE", kQuery, kError, "a column that is read is gone"},
    {"COLUMN_NO_DELETE_UNLESS_RESERVED", kQuery, kError,
     "a column of a table that is read as a whole is gone, and its name is not reserved"},
    {"COLUMN_NAME_REUSED", kQuery, kError, "a reserved name is back as a new column"},
    {"COLUMN_SAME_AFFINITY", kQuery, kError, "values compare and sort otherwise"},
    {"COLUMN_SAME_DECLTYPE", kQuery, kWarning, "another declared type of the same affinity"},
    {"COLUMN_SAME_COLLATION", kQuery, kError, "texts compare and sort otherwise"},
    {"COLUMN_NOT_NULL_REMOVED", kQuery, kError, "readers may meet NULL"},
    {"CHECK_LOOSENED", kQuery, kWarning, "readers may meet values that a CHECK ruled out"},
    {"STRICT_REMOVED", kQuery, kWarning, "readers may meet values of other types"},
    {"TYPE_DOMAIN_WIDENED", kQuery, kWarning, "a column takes values of more types"},
    {"GENERATED_EXPR_CHANGED", kQuery, kError, "a generated column has other values"},
    {"PK_SAME", kQuery, kError, "rows are told apart by other columns"},
    {"UNIQUE_NO_DELETE", kQuery, kError, "rows may repeat: joins multiply, upserts do not prepare"},
    {"ROWID_ALIAS_SAME", kQuery, kError, "the rowid is another column, or may be used again"},
    {"WITHOUT_ROWID_SAME", kQuery, kError, "rowid came or went"},
    {"VIEW_RESULT_COLUMNS", kQuery, kError, "a view has other columns"},
    {"VIEW_RESULT_AFFINITY", kQuery, kError, "a view's column compares and sorts otherwise"},
    {"VIEW_STAR", kQuery, kWarning, "a view says *: its columns change with its tables'"},
    {"VIEW_ROWSET_SAME", kQuery, kWarning, "a view has other rows on the sample"},
    {"NAME_AMBIGUOUS", kQuery, kError, "a name in a registered query means several columns"},
    {"NATURAL_JOIN_CHANGED", kQuery, kError, "a NATURAL JOIN joins by other columns"},
    {"QUERY_COMPILES", kQuery, kError, "a registered query does not compile or run"},
    {"QUERY_RESULT_COLUMNS", kQuery, kError, "a registered query has other result columns"},
    {"QUERY_RESULT_AFFINITY", kQuery, kError, "a result compares and sorts otherwise"},
    {"QUERY_ROWSET_SAME", kQuery, kWarning, "a registered query has other rows on the sample"},
    {"ROW_FILTER_NARROWED", kQuery, kError, "a contract's newer version leaves rows out"},
    {"ROW_FILTER_WIDENED", kQuery, kError, "a contract's newer version publishes more rows"},
    {"COLUMN_ORDER_SAME", kPosition, kWarning, "columns have another order"},
    {"COLUMN_ADDED", kPosition, kWarning, "a new column: SELECT * and INSERT without names see it"},
    {"NAME_CASE_SAME", kPosition, kWarning, "a name is spelled in other letters"},
    {"COLUMN_NOT_NULL_ADDED", kWrite, kError, "writers may not store NULL any more"},
    {"COLUMN_ADDED_REQUIRED", kWrite, kError, "a new column that writers must give"},
    {"CHECK_TIGHTENED", kWrite, kError, "a CHECK refuses what was allowed"},
    {"STRICT_ADDED", kWrite, kError, "values of other types are refused"},
    {"UNIQUE_ADDED", kWrite, kError, "rows that repeat are refused"},
    {"FK_ADDED", kWrite, kError, "rows without their parent are refused"},
    {"DEFAULT_CHANGED", kWrite, kWarning, "what writers leave out becomes another value"},
    {"FK_NO_DELETE", kWrite, kWarning, "rows may lose their parent"},
    {"FK_ACTION_SAME", kWrite, kWarning, "what becomes of rows whose parent goes"},
    {"TABLE_TO_VIEW", kWrite, kError, "a table became a view"},
    {"VIEW_TO_TABLE", kWrite, kWarning, "a view became a table"},
    {"TRIGGER_COMPILES", kFile, kError, "a trigger fails when it fires"},
    {"VIEW_COMPILES", kFile, kError, "a view cannot be read"},
    {"FILE_MIN_SQLITE", kFile, kError, "syntax that the consumers' SQLite does not know"},
    {"FILE_NEEDS_EXTENSION", kFile, kError, "a collation, function or module of an extension"},
    {"INDEX_NO_DELETE", kPlan, kWarning, "an index is gone"},
    {"PLAN_CHANGED", kPlan, kWarning, "a registered query scans where it searched"},
    {"TABLE_REBUILD", kPlan, kWarning, "the table must be written anew: all its pages are shipped"},
    {"LARGE_REWRITE", kPlan, kWarning, "many pages change at once, and are shipped"},
    {"CONTRACT_UNKNOWN_NAME", kContract, kError, "a contract names what neither schema has"},
    {"IGNORE_INVALID", kContract, kError, "an ignore without rule, date or reason"},
    {"IGNORE_EXPIRED", kContract, kError, "an ignore whose day has passed"},
    {"IGNORE_UNUSED", kContract, kWarning, "an ignore that nothing needs"},
});

constexpr auto kCategories =
    std::to_array<std::pair<Category, std::string_view>>({{kFile, "FILE"},
                                                          {kQuery, "QUERY"},
                                                          {kPosition, "POSITION"},
                                                          {kWrite, "WRITE"},
                                                          {kPlan, "PLAN"},
                                                          {kContract, "CONTRACT"}});

}  // namespace

std::string_view severity_name(Severity severity) {
  switch (severity) {
    case Severity::kOff:
      return "off";
    case Severity::kWarning:
      return "warning";
    case Severity::kError:
      return "error";
  }
  return "";
}

std::string_view category_name(Category category) {
  for (const auto& [value, name] : kCategories) {
    if (value == category) return name;
  }
  return "";
}

std::span<const Rule> all_rules() { return kRules; }

const Rule* find_rule(std::string_view id) {
  auto found = std::ranges::find(kRules, id, &Rule::id);
  return found == kRules.end() ? nullptr : &*found;
}

std::optional<Category> find_category(std::string_view wanted) {
  for (const auto& [value, name] : kCategories) {
    if (name == wanted) return value;
  }
  return std::nullopt;
}

}  // namespace offprint::publication
