#pragma once

#include <optional>
#include <string>
#include <vector>

#include "publication/contract_findings.h"
#include "publication/contract_set.h"
#include "publication/schema_script.h"

// Ignores: findings that somebody has decided to live with, until a day.
namespace offprint::publication {

struct Ignore {
  const Rule* rule = nullptr;
  std::string until;   // the last day, "2026-12-31"
  std::string object;  // folded; "table" means its columns too; empty: whatever object
  std::string label;   // where it stands
  std::optional<Place> place;
  bool is_used = false;
};

// `-- contract:ignore RULE until=YYYY-MM-DD reason="…" [object=NAME]` in the comments of a script,
// and those of the contracts. What is wrong with one becomes a finding.
std::vector<Ignore> read_ignores(const SchemaScript& script, const std::vector<Contract>& contracts,
                                 Findings& findings);

// Takes out what is ignored on the day `today`; returns how many were. Ignores whose day has passed
// or that nothing needed become findings.
int apply_ignores(std::vector<Ignore> ignores, const std::string& today, Findings& findings);

}  // namespace offprint::publication
