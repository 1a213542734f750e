#pragma once

#include <string>
#include <vector>

#include "database/store.h"

namespace offprint::database {

// The tables (and those whose indexes) that own one of `pages`, by name, in a state that has them.
// Reads the interior pages of its b-trees: a hundredth of a database. Rows that spill over into
// further pages count by their first one. Blocks.
Result<std::vector<std::string>> touched_tables(Snapshot& state, const std::vector<PageNo>& pages);

}  // namespace offprint::database
