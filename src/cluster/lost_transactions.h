#pragma once

#include <string>

#include "base/file_system.h"
#include "base/result.h"

namespace offprint::cluster {

// Where they are kept: DATA/lost/TIME, each as an LTX file, and a list of them.
// docs/operations/cluster.md, "what a forced failover cut".
inline constexpr const char* kLostFolder = "lost";

// A finished fill becomes the folder (FolderFill::take_over). Before that, transactions of the
// folder's log that a forced failover has cut are kept, for an operator to look at. Again is no
// error. kFull, kIo: nothing has changed.
Result<> take_over_fill(FileSystem& files, const std::string& data);

}  // namespace offprint::cluster
