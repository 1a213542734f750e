#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "archive/object_store.h"

namespace offprint::archive {

// Objects as files below a folder, which is made when something is put. Modification times are the
// objects'. What a killed process left half written goes when a list comes by, this long after.
Result<std::unique_ptr<ObjectStore>> open_file_store(
    const std::string& folder, FileSystem& files,
    std::chrono::milliseconds leftovers_after = std::chrono::hours(24));

}  // namespace offprint::archive
