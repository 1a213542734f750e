#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/file_system.h"
#include "cluster/coordinator.h"
#include "cluster/coordinator_table.h"

namespace offprint::cluster {

// What goes wrong with one call of a coordinator for tests.
struct RegisterFault {
  enum class Kind {
    kNone,
    kUnreachable,  // nothing is sent
    kRequestLost,  // sent, never arrives
    kAnswerLost,   // carried out, the answer never arrives
    kHeld,         // the table holds a swap back until a test lands or drops it; a read is lost
  };
  Kind kind = Kind::kNone;
  int delay_ms = 0;  // until it arrives, maybe after the deadline
};

// Asked once for each read, list and swap, on the coordinator's thread.
using RegisterFaults = std::function<RegisterFault(const std::string& key)>;

// The driver `mem`: any number of coordinators over one table, for tests. What one announced goes
// away when it ends.
std::unique_ptr<Coordinator> create_mem_coordinator(std::shared_ptr<RegisterTable> table,
                                                    RegisterFaults faults = nullptr);

// The driver `static`: a single node that is its own coordinator. With a path the records are in
// that file (docs/format/cluster-records.md), durable when a swap is applied; with none they are in
// memory. One process at a time, which the lock of the data folder sees to.
// Errors: kCorrupt the file is damaged, kInvalid a newer Offprint wrote it, kIo.
Result<std::unique_ptr<Coordinator>> create_static_coordinator(FileSystem& files,
                                                               const std::string& path);

}  // namespace offprint::cluster
