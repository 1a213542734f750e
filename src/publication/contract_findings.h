#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "publication/contract_rule.h"
#include "publication/schema_script.h"

namespace offprint::publication {

struct Finding {
  const Rule* rule = nullptr;
  Severity severity = Severity::kWarning;
  std::string label;           // the script or database that it is in
  std::optional<Place> place;  // in it
  std::string object;          // folded "table", "table.column", "trigger", "" for a query
  std::string contract;        // "orders@v2"; empty: no single one
  std::string message;
};

// Severities that were asked for. What is nearer wins: a rule's, then its category's.
struct Severities {
  std::map<std::string, Severity, std::less<>> by_name;  // of rules and categories
  bool writers = false;  // they are not deployed together with the schema: WRITE findings count

  // `own`: what the finding itself asks for.
  Severity of(const Rule& rule, Severity own) const;
};

// What rules found, in the order of the file.
class Findings {
 public:
  struct Where {
    std::string object;    // folded
    std::string column;    // folded
    std::string contract;  // label
    std::optional<Place> place;
  };
  explicit Findings(Severities severities) : severities_(std::move(severities)) {}

  // `rule` must be one of all_rules(). `severity`: instead of the rule's.
  void add(std::string_view rule, const std::string& label, Where where, std::string message,
           std::optional<Severity> severity = std::nullopt);

  std::vector<Finding>& list() { return list_; }
  const Severities& severities() const { return severities_; }

 private:
  Severities severities_;
  std::vector<Finding> list_;
};

}  // namespace offprint::publication
