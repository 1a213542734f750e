#pragma once

#include <memory>

#include "cluster/coordinator.h"
#include "cluster/etcd_session.h"

namespace offprint::cluster {

// The driver `etcd`: a register in an etcd cluster, spoken to over its v3 JSON gateway (etcd 3.4 or
// later). Versions are etcd's mod_revision. Leases announce only, so that their known faults (a key
// that goes while its lease is renewed, a renewal that succeeds for a lost lease) cost a hint.
// What would make a decision wrong is found and ends the coordinator: a register that was wiped or
// set back to an older backup while it ran, a member of another etcd cluster (left for the others).
// A thread of its own. kInvalid: no endpoint, or a file for TLS that is not there.
Result<std::unique_ptr<Coordinator>> create_etcd_coordinator(EtcdOptions options);

}  // namespace offprint::cluster
