#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "publication/plan.h"
#include "publication/source_state.h"

namespace offprint::publication {

// What an instance would be.
struct InstanceEstimate {
  std::string parameters;  // as canonical() writes them
  std::uint64_t rows = 0;
  std::uint64_t bytes = 0;  // of its file; reckoned from its first rows where there are many
};

// Of instances with these values of the parameters; without any, of up to 20 whose values rows of
// the source have, taken from all over its tables. Blocks: the rows of each are counted.
Result<std::vector<InstanceEstimate>> estimate_instances(
    SourceState& source, const Plan& plan, const std::vector<std::vector<Argument>>& arguments);

}  // namespace offprint::publication
