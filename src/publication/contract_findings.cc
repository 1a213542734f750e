#include "publication/contract_findings.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace offprint::publication {

Severity Severities::of(const Rule& rule, Severity own) const {
  if (auto found = by_name.find(rule.id); found != by_name.end()) return found->second;
  if (auto found = by_name.find(category_name(rule.category)); found != by_name.end())
    return found->second;
  const bool is_for_writers = rule.category == Category::kWrite && !writers;
  return is_for_writers ? std::min(own, Severity::kWarning) : own;
}

void Findings::add(std::string_view id, const std::string& label, Where where, std::string message,
                   std::optional<Severity> severity) {
  const Rule* rule = find_rule(id);
  OFFPRINT_ASSERT(rule != nullptr);
  Finding finding;
  finding.rule = rule;
  finding.severity = severities_.of(*rule, severity.value_or(rule->severity));
  if (finding.severity == Severity::kOff) return;
  finding.label = label;
  finding.place = where.place;
  finding.object = where.column.empty() ? where.object : where.object + "." + where.column;
  finding.contract = std::move(where.contract);
  finding.message = std::move(message);
  list_.push_back(std::move(finding));
}

}  // namespace offprint::publication
