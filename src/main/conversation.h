#pragma once

#include <functional>
#include <string>

#include "base/result.h"

namespace offprint {

// Statements typed on a terminal, until .quit or the end of the input: `run` gets each whole one,
// and prints what it gives; its errors are shown. Returns the exit code.
int converse(const std::string& title, const std::function<Result<>(const std::string&)>& run);

}  // namespace offprint
