#pragma once

#include <memory>
#include <string>

#include "archive/object_store.h"

namespace offprint::archive {

// Objects as files below a folder, which is made when something is put. Modification times are the
// objects'.
Result<std::unique_ptr<ObjectStore>> open_file_store(const std::string& folder, FileSystem& files);

}  // namespace offprint::archive
