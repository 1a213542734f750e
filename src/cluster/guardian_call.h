#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include "cluster/guardian_page.h"

namespace offprint::cluster {

struct DeathNotice {
  std::string cluster, node;  // whose process died
  std::string secret;         // of the cluster; empty: it has none
  GuardianPage::LastWords words;
};

// Tells all other nodes at once that the process is dead, so that they need not wait until its
// leases have run out. To be called only when it is, with all its threads and sockets. Answers how
// many have heard it. Blocks until all have, or for `time`; what has not ended then ends with this
// process.
std::size_t tell_of_death(const DeathNotice& notice, std::chrono::milliseconds time);

}  // namespace offprint::cluster
