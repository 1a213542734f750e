#pragma once

#include <string>
#include <vector>

// For each rule of the checker a change that it is for, and one like it that it is not for.
namespace offprint::publication::testing {

struct RuleFixture {
  std::string rule;
  std::string before;
  std::string found;          // the new schema in which the rule finds something
  std::string not_found;      // and one in which it does not
  std::string contract = {};  // TOML; empty: everything is read
  std::string other_contract = {};
  bool is_error = true;     // else a warning; with CheckOptions::Severities::writers
  std::string sample = {};  // a script
};

std::vector<RuleFixture> table_fixtures();
std::vector<RuleFixture> column_fixtures();
std::vector<RuleFixture> file_fixtures();
std::vector<RuleFixture> key_fixtures();    // keys, CHECKs, cost
std::vector<RuleFixture> query_fixtures();  // views, queries, contracts, ignores

}  // namespace offprint::publication::testing
