#pragma once

#include <string>
#include <utility>
#include <vector>

#include "publication/definition.h"
#include "publication/source_state.h"

namespace offprint::publication {

// The values of all parameters of a definition, in its order, from their texts by name. kInvalid
// "PUBLICATION_PARAMETER: …": one is missing, or is not of its type.
Result<std::vector<Argument>> arguments_of(
    const Definition& definition, const std::vector<std::pair<std::string, std::string>>& texts);

}  // namespace offprint::publication
