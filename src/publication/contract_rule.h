#pragma once

#include <optional>
#include <span>
#include <string_view>

// The rules of the checker. docs/contracts.md has a section on each.
namespace offprint::publication {

enum class Severity { kOff, kWarning, kError };
std::string_view severity_name(Severity severity);  // "off", "warning", "error"

// Whom a change harms.
enum class Category {
  kFile,      // everybody who opens the file
  kQuery,     // who reads by name
  kPosition,  // who relies on the order or spelling of columns
  kWrite,     // who writes with statements made for the old schema
  kPlan,      // nobody's answers: speed, and bytes to ship
  kContract,  // nobody yet: the contracts and ignores themselves are wrong
};
std::string_view category_name(Category category);  // "FILE"

struct Rule {
  std::string_view id;
  Category category;
  Severity severity;  // unless a finding, a flag or the category says otherwise
  std::string_view summary;
};

std::span<const Rule> all_rules();
// Nothing when there is none of this id.
const Rule* find_rule(std::string_view id);
std::optional<Category> find_category(std::string_view name);

}  // namespace offprint::publication
