#pragma once

#include <string>

#include "base/file_system.h"
#include "cluster/coordinator_table.h"

// The file of a register that a single node keeps itself (docs/format/cluster-records.md).
namespace offprint::cluster {

// An absent file is an empty register. kCorrupt: damaged. kInvalid: a newer Offprint wrote it.
Result<RegisterTable::State> load_register(FileSystem& files, const std::string& path);
// Replaces the file at once and durably.
Result<> save_register(FileSystem& files, const std::string& path,
                       const RegisterTable::State& state);

}  // namespace offprint::cluster
